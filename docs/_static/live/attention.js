/* A transformer reads all rows of an image at once: who attends to whom. */
"use strict";
(() => {
  const { html, fill, parts, networks } = window.dianLive;
  const TEXT = {
    image: tr("Image"),
    weights: tr("Attention weights (query down, key right)"),
    row: tr("Rows that the query attends to"),
    probabilities: tr("Class probabilities: {name} {p}"),
    told: tr("Layer {layer}, head {head}: row {query} attends most to row {top}, with weight {weight}. "
      + "The predicted class is {name}, with probability {p}."),
    shuffled: tr("Shuffling the rows changes each logit by at most {change}."),
    layer: tr("Layer"),
    head: tr("Head"),
    query: tr("Row (query)"),
    network: tr("Network"),
    shuffle: tr("Shuffle the rows"),
    off: tr("Remove the positional encoding"),
    loading: tr("Loading …"),
    failed: tr("{what}."),
  };

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
    const shown = parts.picture(TEXT.image, 28, 28);
    const map = parts.picture(TEXT.weights, 28, 28);
    const one = parts.picture(TEXT.row, 28, 28);
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
      const values = { layer: layer.value, head: head.value, query: q + 1, top: read.indexOf(top) + 1,
        weight: top.toFixed(3), name: classes[best], p: p[best].toFixed(3) };
      probability.show(p, fill(TEXT.probabilities, values));
      const change = Math.max(...found.logits.map((o, k) => Math.abs(o - straight.logits[k])));
      told.textContent = fill(TEXT.told, values)
        + (shuffled ? ` ${fill(TEXT.shuffled, { change: change.toFixed(4) })}` : "");
    };
    const layer = parts.slider(TEXT.layer, { min: 1, max: network.layers.length, value: 1 }, () => show());
    const head = parts.slider(TEXT.head, { min: 1, max: network.n_head, value: 1 }, () => show());
    const query = parts.slider(TEXT.query, { min: 1, max: 28, value: 14 }, () => show());
    for (const { canvas } of [map, one]) {
      canvas.addEventListener("pointermove", (event) => {
        const at = canvas.getBoundingClientRect();
        const row = 1 + Math.floor((event.clientY - at.top) / at.height * 28);
        if (row >= 1 && row <= 28 && row !== query.value) { query.set(row); show(); }
      });
    }
    const chooser = parts.select(TEXT.network, facts.networks, async (name) => {
      status.textContent = TEXT.loading;
      try {
        network = assemble(await data(name));
        status.textContent = "";
        run();
      } catch (error) { status.textContent = fill(TEXT.failed, { what: error.message }); }
    });
    const shuffle = parts.check(TEXT.shuffle, false, (on) => { shuffled = on; run(); });
    const off = parts.check(TEXT.off, false, (on) => { without = on; run(); });
    const picker = parts.picker(images, (chosen) => { image = chosen; run(); });
    box.append(picker.box, chooser.line, layer.line, head.line, query.line, shuffle.line, off.line,
      html("div", { className: "live-pictures" }, shown.box, map.box, one.box), probability.box, told);
    picker.choose(0);
  };
})();
