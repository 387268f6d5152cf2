/* The arithmetic of the networks, without any access to the page. Weights have 32 bits, as
   recorded; sums are computed in 64 bits. */
"use strict";
(() => {
  const zeros = (n) => new Float64Array(n);

  /** y += x W, where W has a row for each number of x. Four rows at a time: y, which would be
      read and written for each of them, takes most of the time. */
  const addProduct = (y, x, W) => {
    const m = y.length, fours = x.length - x.length % 4;
    for (let i = 0; i < fours; i += 4) {
      const [a, b, c, d] = [x[i], x[i + 1], x[i + 2], x[i + 3]];
      for (let j = 0, at = i * m; j < m; j++, at++) {
        y[j] += a * W[at] + b * W[at + m] + c * W[at + 2 * m] + d * W[at + 3 * m];
      }
    }
    for (let i = fours; i < x.length; i++) {
      for (let j = 0, at = i * m; j < m; j++, at++) y[j] += x[i] * W[at];
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

  window.dianLive.arithmetic = { zeros, addProduct, addTransposed, affine, softmax, argmax, rowsOf };
})();
