/* The samplers of the chapter on diffusion, in plain arithmetic. A network is a function of x
   and t that returns a promise of its prediction. */
"use strict";
(() => {
  /** Standard normal numbers, determined by a seed and a stream (mulberry32, Box and Muller). */
  const normal = (seed, stream, n) => {
    let state = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(stream + 1, 0x85ebca6b)) | 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) | 0;
      let z = Math.imul(state ^ (state >>> 15), 1 | state);
      z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
      return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
    };
    return Float32Array.from({ length: n }, () => Math.sqrt(-2 * Math.log(1 - uniform()))
      * Math.cos(2 * Math.PI * uniform()));
  };

  /** Interpolate from x to y on a great circle, so that a mixture of noises keeps their variance. */
  const between = (x, y, share) => {
    const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
    const angle = Math.acos(dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y)));
    const a = Math.sin((1 - share) * angle) / Math.sin(angle);
    const b = Math.sin(share * angle) / Math.sin(angle);
    return x.map((v, i) => a * v + b * y[i]);
  };

  /** n timesteps, evenly spaced over 1 to T; halves are rounded to the even number. */
  const evenlySpaced = (T, n) => Array.from({ length: n }, (_, i) => {
    const at = (i + 1) * T / n, low = Math.floor(at);
    return at - low !== 0.5 ? Math.round(at) : low + low % 2;
  });

  /** Turn a prediction of the network into the clean image and the noise. */
  const denoise = ({ alphaBar, predicts }, clip, x, t, prediction) => {
    const signal = Math.sqrt(alphaBar[t]), noise = Math.sqrt(1 - alphaBar[t]);
    const guess = {
      epsilon: (v, p) => (v - noise * p) / signal,
      x_0: (v, p) => p,
      v: (v, p) => signal * v - noise * p,
    }[predicts];
    const clean = Float64Array.from(x, (v, i) => guess(v, prediction[i]));
    if (clip) clean.forEach((v, i) => { clean[i] = Math.max(-1, Math.min(1, v)); });
    return { clean, epsilon: Float64Array.from(x, (v, i) => (v - signal * clean[i]) / noise) };
  };

  /** DDIM: after each step, yield t, the new x and the predicted clean image. */
  const ddim = async function* (schedule, network, x_T, { steps, eta, clip, noise, known }) {
    const { T, alphaBar } = schedule, times = [0, ...evenlySpaced(T, steps)];
    let x = Float64Array.from(x_T);
    for (let k = steps; k > 0; k--) {
      const s = times[k - 1], t = times[k], a_s = alphaBar[s], a_t = alphaBar[t];
      const { clean, epsilon } = denoise(schedule, clip, x, t, await network(x, t));
      // sigma^2 = eta^2 (1 - a_s) / (1 - a_t) (1 - a_t / a_s)
      const variance = eta ** 2 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s);
      const left = Math.sqrt(Math.max(1 - a_s - variance, 0)), z = variance > 0 ? noise(t) : null;
      // x_s = sqrt(a_s) x_0 + sqrt(1 - a_s - sigma^2) epsilon + sigma z
      x = clean.map((v, i) => Math.sqrt(a_s) * v + left * epsilon[i]
        + (z ? Math.sqrt(variance) * z[i] : 0));
      if (known) x = replaced(x, known, s, alphaBar);
      yield { done: steps - k + 1, of: steps, t, x, clean };
    }
  };

  /** Algorithm 2: all T steps (or those from `start` on), with the variance beta. */
  const ddpm = async function* (schedule, network, x_T, { clip, noise, known, start }) {
    const { T, beta, alphaBar } = schedule, first = start ?? T;
    let x = Float64Array.from(x_T);
    for (let t = first; t > 0; t--) {
      const { clean, epsilon } = denoise(schedule, clip, x, t, await network(x, t));
      const z = t > 1 ? noise(t) : null, share = beta[t] / Math.sqrt(1 - alphaBar[t]);
      x = x.map((v, i) => (v - share * epsilon[i]) / Math.sqrt(1 - beta[t])
        + (z ? Math.sqrt(beta[t]) * z[i] : 0));
      if (known) x = replaced(x, known, t - 1, alphaBar);
      yield { done: first - t + 1, of: first, t, x, clean };
    }
  };

  /** Replace the known pixels of x by those of the given image, noised to step s. */
  const replaced = (x, { image, mask, noise }, s, alphaBar) => x.map((v, i) => (mask[i]
    ? Math.sqrt(alphaBar[s]) * image[i] + Math.sqrt(1 - alphaBar[s]) * noise[i] : v));

  /** Guidance: (1 + w) times the prediction with the class, minus w times that without. */
  const guided = (withClass, without, w) => withClass.map((v, i) => (1 + w) * v - w * without[i]);

  window.dianLive.sampler = { normal, between, evenlySpaced, ddim, ddpm, guided };
})();
