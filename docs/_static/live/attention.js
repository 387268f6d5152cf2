/* A transformer reads all rows of an image at once; the figure shows its attention weights. */
"use strict";
(() => {
  const { html, fill, parts, arithmetic, transformer, imagePicker } = window.dianLive;
  const { argmax, rowsOf, softmax } = arithmetic;
  const TEXT = {
    image: tr("Image"),
    weights: tr("Attention weights (query down, key right)"),
    row: tr("Rows that the query attends to"),
    probabilities: tr("Class probabilities: {name} {p}"),
    words: tr("Layer {layer}, head {head}: row {query} attends most to row {top}, with weight {weight}. "
      + "The predicted class is {name}, with probability {p}."),
    shuffled: tr("Shuffling the rows changes each logit by at most {change}."),
    layer: tr("Layer"),
    head: tr("Head"),
    query: tr("Row (query)"),
    shuffle: tr("Shuffle the rows"),
    off: tr("Remove the positional encoding"),
  };

  /** Group the weights of a record by layer. */
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
  /** The row at each place. 11 and 28 have no common factor, so no row occurs twice. */
  const order = (shuffled) => Array.from({ length: 28 }, (_, t) => (shuffled ? (11 * t + 5) % 28 : t));

  window.dianLive.attention = { assemble, order };

  window.dianLive.figures.attention = ({ box, facts, images, network: first, data, status }) => {
    const { classes } = images;
    let network = assemble(first), image, shuffled = false, positions = true;
    let found, inOrder; // the results for the rows as shown, and for the rows in their order
    const shown = parts.picture(TEXT.image, 28, 28);
    const map = parts.picture(TEXT.weights, 28, 28);
    const one = parts.picture(TEXT.row, 28, 28);
    const probability = parts.bars(classes), words = parts.words();
    const run = () => {
      const used = positions ? network : { ...network, encoding: "none" };
      const rows = rowsOf(image.pixels), places = order(shuffled);
      found = transformer.attend(used, places.map((t) => rows[t]));
      inOrder = shuffled ? transformer.attend(used, rows) : found;
      show();
    };
    const show = () => {
      const places = order(shuffled), P = found.weights[layer.value - 1][head.value - 1];
      const most = Math.max(...P.map((row) => Math.max(...row))), q = query.value - 1;
      const ink = (i) => image.pixels[28 * places[Math.floor(i / 28)] + i % 28] / 255;
      shown.paint((i) => parts.gray(ink(i)));
      map.paint((i) => {
        const row = Math.floor(i / 28), v = P[row][i % 28] / most;
        return row === q ? parts.signed(0.15 + 0.85 * v) : parts.gray(v);
      });
      const weights = P[q], top = argmax(weights), largest = weights[top];
      one.paint((i) => {
        const row = Math.floor(i / 28), v = ink(i), w = weights[row] / largest;
        return row === q ? parts.signed(-0.3 - 0.7 * v) : parts.gray(0.08 * w + v * (0.1 + 0.9 * w));
      });
      const p = softmax(found.logits), best = argmax(p);
      const values = { layer: layer.value, head: head.value, query: q + 1, top: top + 1,
        weight: largest.toFixed(3), name: classes[best], p: p[best].toFixed(3) };
      probability.show(p, fill(TEXT.probabilities, values));
      const change = Math.max(...found.logits.map((o, k) => Math.abs(o - inOrder.logits[k])));
      words.textContent = fill(TEXT.words, values)
        + (shuffled ? ` ${fill(TEXT.shuffled, { change: change.toFixed(4) })}` : "");
    };
    const layer = parts.slider(TEXT.layer, { min: 1, max: network.layers.length, value: 1 }, show);
    const head = parts.slider(TEXT.head, { min: 1, max: network.n_head, value: 1 }, show);
    const query = parts.slider(TEXT.query, { min: 1, max: 28, value: 14 }, show);
    for (const { canvas } of [map, one]) {
      canvas.addEventListener("pointermove", (event) => {
        const at = canvas.getBoundingClientRect();
        const row = 1 + Math.floor((event.clientY - at.top) / at.height * 28);
        if (row >= 1 && row <= 28 && row !== query.value) { query.set(row); show(); }
      });
    }
    const chooser = parts.networkSelect({ facts, data, status }, (chosen) => {
      network = assemble(chosen);
      run();
    });
    const shuffle = parts.check(TEXT.shuffle, false, (on) => { shuffled = on; run(); });
    const off = parts.check(TEXT.off, false, (on) => { positions = !on; run(); });
    const picker = imagePicker(images, (chosen) => { image = chosen; run(); });
    box.append(picker.box, chooser.line, layer.line, head.line, query.line, shuffle.line, off.line,
      html("div", { className: "live-pictures" }, shown.box, map.box, one.box), probability.box, words);
    picker.choose(0);
  };
})();
