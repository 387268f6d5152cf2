/* The recorded networks in plain arithmetic, without any access to the page. Weights have 32
   bits, as recorded; sums are computed in 64 bits. The names are those of the chapters: X are
   the rows of an image, H the hidden states, A the arguments of the activation function. */
"use strict";
(() => {
  const zeros = (n) => new Float64Array(n);

  /** y += x W, where W has a row for each number of x. */
  const addProduct = (y, x, W) => {
    const m = y.length;
    for (let i = 0; i < x.length; i++) {
      const xi = x[i];
      if (xi !== 0) for (let j = 0, at = i * m; j < m; j++, at++) y[j] += xi * W[at];
    }
    return y;
  };
  /** y += x W^T, where W has a row for each number of y. */
  const addTransposed = (y, x, W) => {
    const m = x.length;
    for (let i = 0; i < y.length; i++) {
      let sum = 0;
      for (let j = 0, at = i * m; j < m; j++, at++) sum += x[j] * W[at];
      y[i] += sum;
    }
    return y;
  };
  /** x W + b, where W has a row for each number of x. */
  const affine = (x, W, b) => addProduct(Float64Array.from(b), x, W);
  const softmax = (logits) => {
    const most = Math.max(...logits);
    const powers = Float64Array.from(logits, (o) => Math.exp(o - most));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((p) => p / sum);
  };

  const argmax = (x) => x.indexOf(Math.max(...x));
  /** The rows of an image of bytes, with values from 0 to 1 as in the library: 32-bit numbers. */
  const rowsOf = (pixels) => Array.from({ length: 28 }, (_, t) =>
    Float64Array.from(pixels.subarray(28 * t, 28 * (t + 1)), (v) => Math.fround(v / 255)));

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

  /** Return all states of the top layer, the logits, and what the backward pass needs. */
  const read = ({ cell, layers, readout, W_hq, b_q }, rows) => {
    const { forward } = CELLS[cell], tape = [];
    let X = rows;
    for (const directions of layers) {
      const kept = directions.map((weights, k) => forward(k ? X.toReversed() : X, weights));
      tape.push({ X, kept });
      const parts = kept.map(({ H }, k) => (k ? H.toReversed() : H));
      X = X.map((_, t) => Float64Array.from(parts.flatMap((H) => [...H[t]])));
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

  /* --- The transformer that reads all rows at once ------------------------------------- */
  const norm = (x, scale, shift) => {
    const mean = x.reduce((a, b) => a + b, 0) / x.length;
    const variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length;
    return x.map((v, i) => (v - mean) / Math.sqrt(variance + 1e-5) * scale[i] + shift[i]);
  };
  const frequency = (i, d) => 10000 ** (-2 * i / d);
  /** Add the sinusoidal encoding of position m; sine and cosine of a frequency are neighbors. */
  const addPosition = (x, m) => x.map((v, k) => {
    const angle = m * frequency(k >> 1, x.length);
    return v + (k % 2 ? Math.cos(angle) : Math.sin(angle));
  });
  /** Rotate each pair of neighboring features by its angle at position m. */
  const rotate = (x, m) => {
    const y = zeros(x.length);
    for (let i = 0; 2 * i < x.length; i++) {
      const angle = m * frequency(i, x.length), c = Math.cos(angle), s = Math.sin(angle);
      y[2 * i] = c * x[2 * i] - s * x[2 * i + 1];
      y[2 * i + 1] = s * x[2 * i] + c * x[2 * i + 1];
    }
    return y;
  };

  /** Return the logits, and the attention weights [layer][head][query][key]. */
  const attend = ({ encoding, n_head, layers, enter, leave, norm: end }, rows) => {
    const d = enter.bias.length, d_head = d / n_head, weights = [];
    let X = rows.map((row) => addTransposed(Float64Array.from(enter.bias), row, enter.weight));
    if (encoding === "sinusoidal") X = X.map(addPosition);
    for (const w of layers) {
      const normed = X.map((x) => norm(x, w.norm_1.weight, w.norm_1.bias));
      const heads = (name) => normed.map((x) => {
        const y = affine(x, w.attention[`W_${name}`], w.attention[`b_${name}`]);
        return Array.from({ length: n_head }, (_, h) => y.slice(h * d_head, (h + 1) * d_head));
      });
      let Q = heads("Q"), K = heads("K");
      const V = heads("V");
      if (encoding === "rotary") {
        [Q, K] = [Q, K].map((all) => all.map((row, m) => row.map((x) => rotate(x, m))));
      }
      const P = Array.from({ length: n_head }, (_, h) => Q.map((q) => softmax(K.map((k) =>
        q[h].reduce((sum, v, i) => sum + v * k[h][i], 0) / Math.sqrt(d_head)))));
      weights.push(P);
      X = X.map((x, m) => {
        const joined = zeros(d);
        for (let h = 0; h < n_head; h++) {
          P[h][m].forEach((p, n) => {
            for (let i = 0; i < d_head; i++) joined[h * d_head + i] += p * V[n][h][i];
          });
        }
        const attended = affine(joined, w.attention.W_O, w.attention.b_O);
        const y = x.map((v, i) => v + attended[i]);
        const inner = addTransposed(Float64Array.from(w.inner.bias),
          norm(y, w.norm_2.weight, w.norm_2.bias), w.inner.weight).map((v) => Math.max(0, v));
        const outer = addTransposed(Float64Array.from(w.outer.bias), inner, w.outer.weight);
        return y.map((v, i) => v + outer[i]);
      });
    }
    X = X.map((x) => norm(x, end.weight, end.bias));
    const mean = X[0].map((_, i) => X.reduce((sum, x) => sum + x[i], 0) / X.length);
    return {
      logits: addTransposed(Float64Array.from(leave.bias), mean, leave.weight), weights };
  };

  window.dianLive.networks = { read, gradient, attend, softmax, argmax, rowsOf };
})();
