/* A transformer reads all rows of an image at once: who attends to whom. */
"use strict";
(() => {
  const { html, parts, networks } = window.dianLive;

  /** The weights of a script, put into layers. */
  const assemble = ({ encoding, n_head, n_layer, tensors }) => {
    const at = (prefix, names) => Object.fromEntries(names.map((n) => [n, tensors[prefix + n]]));
    const both = (prefix) => at(prefix, ["weight", "bias"]);
    return { encoding, n_head, enter: both("enter."), leave: both("leave."),
      norm: both("encoder.norm."),
      layers: Array.from({ length: n_layer }, (_, n) => {
        const own = `encoder.layers.${n}.`;
        return { norm_1: both(`${own}norm_1.`), norm_2: both(`${own}norm_2.`),
          inner: both(`${own}inner.`), outer: both(`${own}outer.`),
          attention: at(`${own}attention.`, ["W_Q", "b_Q", "W_K", "b_K", "W_V", "b_V", "W_O", "b_O"]) };
      }) };
  };
  const rowsOf = (pixels) => Array.from({ length: 28 }, (_, t) =>
    Float64Array.from(pixels.subarray(28 * t, 28 * (t + 1)), (v) => Math.fround(v / 255)));
  /* 11 has no factor in common with 28: each row goes to a place of its own. */
  const order = (shuffled) => Array.from({ length: 28 }, (_, t) => (shuffled ? (11 * t + 5) % 28 : t));

  window.dianLive.attention = { assemble, rowsOf, order };

  window.dianLive.figures.attention = async ({ box, facts, images, data, status }) => {
    const { classes } = images;
    let network = assemble(await data(Object.keys(facts.networks)[0]));
    let image, found, straight, shuffled = false, without = false;
    const shown = parts.picture("Image", 28, 28), map = parts.picture("Attention weights", 28, 28);
    const one = parts.picture("Rows that the query reads", 28, 28);
    const probability = parts.bars(classes), told = parts.words();
    const run = () => {
      const used = without ? { ...network, encoding: "none" } : network;
      const rows = rowsOf(image.pixels), places = order(shuffled);
      found = networks.attend(used, places.map((t) => rows[t]));
      straight = shuffled ? networks.attend(used, rows) : found;
      show();
    };
    const show = () => {
      const places = order(shuffled), P = found.weights[layer.value - 1][head.value - 1];
      const most = Math.max(...P.map((row) => Math.max(...row))), q = query.value - 1;
      const ink = (i) => image.pixels[28 * places[Math.floor(i / 28)] + i % 28] / 255;
      shown.paint((i) => parts.grey(ink(i)));
      map.paint((i) => { const v = P[Math.floor(i / 28)][i % 28] / most;
        return Math.floor(i / 28) === q ? parts.signed(0.15 + 0.85 * v) : parts.grey(v); });
      const read = P[q], top = Math.max(...read);
      one.paint((i) => { const row = Math.floor(i / 28), v = ink(i), w = read[row] / top;
        return row === q ? parts.signed(-0.3 - 0.7 * v) : parts.grey(0.08 * w + v * (0.1 + 0.9 * w)); });
      const p = networks.softmax(found.logits), best = p.indexOf(Math.max(...p));
      probability.show(p, `Class probabilities: ${classes[best]} ${p[best].toFixed(3)}`);
      const change = Math.max(...found.logits.map((o, k) => Math.abs(o - straight.logits[k])));
      told.textContent = `Layer ${layer.value}, head ${head.value}: row ${q + 1} attends most to row `
        + `${read.indexOf(top) + 1}, with weight ${top.toFixed(3)}. The class is ${classes[best]}, `
        + `probability ${p[best].toFixed(3)}.`
        + (shuffled ? ` Shuffling the rows changes a logit by at most ${change.toFixed(4)}.` : "");
    };
    const layer = parts.slider("Layer", { min: 1, max: network.layers.length, value: 1 }, () => show());
    const head = parts.slider("Head", { min: 1, max: network.n_head, value: 1 }, () => show());
    const query = parts.slider("Row (query)", { min: 1, max: 28, value: 14 }, () => show());
    for (const { canvas } of [map, one]) {
      canvas.addEventListener("pointermove", (event) => {
        const at = canvas.getBoundingClientRect();
        const row = 1 + Math.floor((event.clientY - at.top) / at.height * 28);
        if (row >= 1 && row <= 28 && row !== query.value) { query.set(row); show(); }
      });
    }
    const chooser = parts.select("Network", facts.networks, async (name) => {
      status.textContent = "Loading …";
      try {
        network = assemble(await data(name));
        status.textContent = "";
        run();
      } catch (error) { status.textContent = `${error.message}.`; }
    });
    const shuffle = parts.check("Shuffle the rows", false, (on) => { shuffled = on; run(); });
    const off = parts.check("Switch the positions off", false, (on) => { without = on; run(); });
    const picker = parts.picker(images, (chosen) => { image = chosen; run(); });
    box.append(picker.box, chooser.line, layer.line, head.line, query.line, shuffle.line, off.line,
      html("div", { className: "live-pictures" }, shown.box, map.box, one.box), probability.box, told);
    picker.choose(0);
  };
})();
