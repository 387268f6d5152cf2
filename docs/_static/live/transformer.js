/* The transformer that reads all rows of an image at once. The names are those of the chapter: Q,
   K and V are queries, keys and values, P the attention weights. */
"use strict";
(() => {
  const { zeros, addTransposed, affine, softmax } = window.dianLive.arithmetic;

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

  window.dianLive.transformer = { attend };
})();
