/* A recurrent network reads an image row by row: its states, the class that it would name
   after each row, and the gradient of the loss with respect to each pixel. */
"use strict";
(() => {
  const { html, fill, parts, networks } = window.dianLive;
  const TEXT = {
    image: tr("Image"),
    states: tr("Hidden state after each row"),
    gradient: tr("Gradient with respect to each pixel"),
    probabilities: tr("Class probabilities after row {t}: {name} {p}"),
    after: tr("After row {t} of 28: {name}, probability {p}."),
    decided: tr("This class is the most probable one from row {since} on. Row {jump} increased its "
      + "probability most, by {rise}."),
    longest: tr("Gradient of the loss of class {name} with respect to each pixel. "
      + "Row {row} has the largest norm."),
    rows: tr("Rows read"),
    play: tr("Read row by row"),
    stop: tr("Stop"),
    network: tr("Network"),
    loading: tr("Loading …"),
    failed: tr("{what}."),
  };

  /** The weights of a script, put into layers. */
  const assemble = ({ cell, readout, layers, tensors }) => {
    const names = cell === "gru" ? ["W_ih", "W_hh", "b_ih", "b_hh"] : ["W_xh", "W_hh", "b_h"];
    return { cell, readout, W_hq: tensors.W_hq, b_q: tensors.b_q,
      layers: layers.map((directions) => directions.map((at) => Object.fromEntries(
        names.map((name) => [name, tensors[at + name]])))) };
  };
  const rowsOf = (pixels) => Array.from({ length: 28 }, (_, t) =>
    Float64Array.from(pixels.subarray(28 * t, 28 * (t + 1)), (v) => Math.fround(v / 255)));

  window.dianLive.reader = { assemble, rowsOf };

  window.dianLive.figures.reader = async ({ figure, box, facts, images, data, status }) => {
    const small = figure.dataset.size === "small", { classes } = images;
    let network = assemble(await data(Object.keys(facts.networks)[0]));
    let image, rows, after, whole, timer = 0;
    const shown = parts.picture(TEXT.image, 28, 28), told = parts.words();
    const states = parts.picture(TEXT.states, 128, 28);
    const heat = parts.picture(TEXT.gradient, 28, 28);
    const probability = parts.bars(classes);

    const of = (t) => after[t] ??= networks.softmax(networks.read(network, rows.slice(0, t)).logits);
    const top = (p) => p.indexOf(Math.max(...p));
    const drawStates = (t) => {
      const H = whole.states, width = H[0].length;
      if (states.canvas.width !== width) states.canvas.width = width;
      const context = states.canvas.getContext("2d"), drawn = context.createImageData(width, 28);
      whole.colors ??= Uint8ClampedArray.from(
        H.flatMap((h) => Array.from(h, (v) => [...parts.signed(v), 255]).flat()));
      drawn.data.fill(255);
      drawn.data.set(whole.colors.subarray(0, 4 * width * t));
      context.putImageData(drawn, 0, 0);
    };
    const show = (t) => {
      const p = of(t), best = top(p);
      shown.paint((i) => (Math.floor(i / 28) === t - 1 ? parts.signed(0.25 + image.pixels[i] / 255)
        : parts.grey(image.pixels[i] / 255 * (i < 28 * t ? 1 : 0.35))));
      if (!small) drawStates(t);
      const values = { t, name: classes[best], p: p[best].toFixed(3) };
      probability.show(p, fill(TEXT.probabilities, values));
      told.textContent = fill(TEXT.after, values) + (t === 28 ? ` ${decided()}` : "");
    };
    const decided = () => {
      const best = top(of(28));
      let since = 28, jump = 1, most = -1;
      while (since > 1 && top(of(since - 1)) === best) since--;
      for (let t = 2; t <= 28; t++) {
        const rise = of(t)[best] - of(t - 1)[best];
        if (rise > most) [most, jump] = [rise, t];
      }
      return fill(TEXT.decided, { since, jump, rise: most.toFixed(3) });
    };
    const differentiate = () => {
      const label = image.label ?? top(of(28));
      const size = networks.gradient(network, rows, label).map((g) => g.map(Math.abs));
      const most = Math.max(...size.flatMap((g) => [...g])) || 1;
      heat.paint((i) => parts.grey(size[Math.floor(i / 28)][i % 28] / most));
      const norms = size.map((g) => Math.hypot(...g)), row = norms.indexOf(Math.max(...norms));
      heat.canvas.setAttribute("aria-label", fill(TEXT.longest, { name: classes[label], row: row + 1 }));
    };
    const slider = parts.slider(TEXT.rows, { min: 1, max: 28, value: 28 }, (t) => {
      stop();
      told.setAttribute("aria-live", "polite");
      show(t);
    });
    const stop = () => { clearInterval(timer); timer = 0; play.textContent = TEXT.play; };
    const play = parts.button(TEXT.play, () => {
      if (timer) {
        told.setAttribute("aria-live", "polite");
        return stop();
      }
      told.setAttribute("aria-live", "off"); // a screen reader reads only the last row
      let t = 0;
      // One frame is enough for a row; this pace can be followed.
      const next = () => {
        slider.set(++t);
        if (t === 28) told.setAttribute("aria-live", "polite");
        show(t);
        if (t === 28) stop();
      };
      next();
      timer = setInterval(next, matchMedia("(prefers-reduced-motion: reduce)").matches ? 400 : 120);
      play.textContent = TEXT.stop;
      return undefined;
    });
    const take = () => {
      after = [];
      whole = networks.read(network, rows);
      if (!small) differentiate();
      show(slider.value);
    };
    const picker = parts.picker(images, (chosen) => {
      stop();
      image = chosen;
      rows = rowsOf(image.pixels);
      take();
    });
    const chooser = parts.select(TEXT.network, facts.networks, async (name) => {
      stop();
      status.textContent = TEXT.loading;
      try {
        network = assemble(await data(name));
        status.textContent = "";
        take();
      } catch (error) { status.textContent = fill(TEXT.failed, { what: error.message }); }
    });
    const pictures = small ? [shown.box] : [shown.box, heat.box, states.box];
    states.box.classList.add("live-wide");
    const controls = small ? [] : [chooser.line];
    if (!small) box.append(picker.box);
    box.append(...controls, slider.line, play,
      html("div", { className: "live-pictures" }, ...pictures), probability.box, told);
    picker.choose(0);
    if (small) play.click();
  };
})();
