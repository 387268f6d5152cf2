/* Recurrent networks, and the gradient with respect to their input. The names are those of the
   chapter: X are the rows of an image, H the hidden states, A the arguments of tanh. */
"use strict";
(() => {
  const { zeros, addProduct, addTransposed, affine, softmax } = window.dianLive.arithmetic;

  /* --- The tanh layer: forward, and backpropagation through time ---------------------- */
  const tanh = {
    forward(X, { W_xh, W_hh, b_h }) {
      const H = [];
      for (let t = 0, state = zeros(b_h.length); t < X.length; t++) {
        // A_t = X_t W_xh + H_{t-1} W_hh + b_h and H_t = tanh(A_t)
        state = addProduct(affine(X[t], W_xh, b_h), state, W_hh).map(Math.tanh);
        H.push(state);
      }
      return { H };
    },
    backward(G, X, { H }, { W_xh, W_hh, b_h }) {
      const grad = [];
      for (let t = X.length - 1, Gamma = zeros(b_h.length); t >= 0; t--) {
        // Gamma_t = direct gradient + delta_{t+1} W_hh^T, and delta_t = Gamma_t (1 - H_t^2)
        const delta = Gamma.map((g, i) => (g + G[t][i]) * (1 - H[t][i] ** 2));
        grad[t] = addTransposed(zeros(X[t].length), delta, W_xh);
        Gamma = addTransposed(zeros(delta.length), delta, W_hh);
      }
      return grad;
    },
  };

  /* --- The gated layer of PyTorch, with its gates in the order r, z, n ----------------- */
  const sigmoid = (a) => 1 / (1 + Math.exp(-a));
  const gru = {
    forward(X, { W_ih, W_hh, b_ih, b_hh }) {
      const h = b_ih.length / 3, H = [], gates = [];
      for (let t = 0, state = zeros(h); t < X.length; t++) {
        const a = addTransposed(Float64Array.from(b_ih), X[t], W_ih);
        const c = addTransposed(Float64Array.from(b_hh), state, W_hh);
        const r = zeros(h), z = zeros(h), n = zeros(h), s = c.slice(2 * h), next = zeros(h);
        for (let i = 0; i < h; i++) {
          r[i] = sigmoid(a[i] + c[i]);
          z[i] = sigmoid(a[h + i] + c[h + i]);
          n[i] = Math.tanh(a[2 * h + i] + r[i] * s[i]);
          next[i] = (1 - z[i]) * n[i] + z[i] * state[i];
        }
        gates.push({ r, z, n, s, state });
        H.push(state = next);
      }
      return { H, gates };
    },
    backward(G, X, { gates }, { W_ih, W_hh, b_ih }) {
      const h = b_ih.length / 3, grad = [];
      for (let t = X.length - 1, Gamma = zeros(h); t >= 0; t--) {
        const { r, z, n, s, state } = gates[t];
        const a = zeros(3 * h), c = zeros(3 * h), before = zeros(h);
        for (let i = 0; i < h; i++) {
          const g = Gamma[i] + G[t][i];
          const dn = g * (1 - z[i]) * (1 - n[i] ** 2);
          a[i] = c[i] = dn * s[i] * r[i] * (1 - r[i]);
          a[h + i] = c[h + i] = g * (state[i] - n[i]) * z[i] * (1 - z[i]);
          a[2 * h + i] = dn;
          c[2 * h + i] = dn * r[i];
          before[i] = g * z[i];
        }
        grad[t] = addProduct(zeros(X[t].length), a, W_ih);
        Gamma = addProduct(before, c, W_hh);
      }
      return grad;
    },
  };

  /* --- Layers, directions and the readout ---------------------------------------------- */
  const CELLS = { tanh, gru };

  /** The states of all directions at one step, after each other in one array. */
  const joined = (parts) => {
    const all = zeros(parts.length * parts[0].length);
    parts.forEach((part, k) => all.set(part, k * part.length));
    return all;
  };

  /** Return all states of the top layer, the logits, and what the backward pass needs. */
  const read = ({ cell, layers, readout, W_hq, b_q }, rows) => {
    const { forward } = CELLS[cell], tape = [];
    let X = rows;
    for (const directions of layers) {
      const kept = directions.map((weights, k) => forward(k ? X.toReversed() : X, weights));
      tape.push({ X, kept });
      const parts = kept.map(({ H }, k) => (k ? H.toReversed() : H));
      X = X.map((_, t) => joined(parts.map((H) => H[t])));
    }
    // A recorded network whose readout is the last state has one direction only.
    const features = readout === "last" ? X.at(-1)
      : X[0].map((_, i) => X.reduce((sum, H) => sum + H[i], 0) / X.length);
    return { states: X, logits: affine(features, W_hq, b_q), tape };
  };

  /** The gradient of the loss of one class with respect to every pixel of every row. */
  const gradient = (network, rows, label) => {
    const { cell, layers, readout, W_hq } = network;
    const { states, logits, tape } = read(network, rows);
    const g = softmax(logits);
    g[label] -= 1; // dL/dO = p - y
    const direct = addTransposed(zeros(states[0].length), g, W_hq);
    const last = states.length - 1;
    let G = states.map((_, t) => (readout === "mean" ? direct.map((d) => d / states.length)
      : t === last ? direct : zeros(direct.length)));
    for (let n = layers.length - 1; n >= 0; n--) {
      const { X, kept } = tape[n], width = G[0].length / layers[n].length;
      const parts = layers[n].map((weights, k) => {
        const mine = G.map((g_t) => g_t.slice(k * width, (k + 1) * width));
        const back = CELLS[cell].backward(
          k ? mine.toReversed() : mine, k ? X.toReversed() : X, kept[k], weights);
        return k ? back.toReversed() : back;
      });
      G = parts[0].map((g_t, t) => g_t.map((v, i) => v + (parts[1] ? parts[1][t][i] : 0)));
    }
    return G;
  };

  window.dianLive.recurrent = { read, gradient };
})();
