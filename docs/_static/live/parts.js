/* Parts that the live figures share: controls, pictures and bars. */
"use strict";
(() => {
  const { html, fill } = window.dianLive;
  const TEXT = {
    network: tr("Network"),
    loading: tr("Loading …"),
    failed: tr("{what}."),
  };
  let count = 0;

  /** Put a control behind its label. */
  const labelled = (label, control, ...more) => {
    control.id = `live-${++count}`;
    return html("div", { className: "interactive-control" },
      html("label", { for: control.id, textContent: label }), control, ...more);
  };
  const slider = (label, range, changed) => {
    const { value, ...limits } = range;
    const input = html("input", { type: "range", ...limits }), shown = html("output");
    const line = labelled(label, input, shown);
    shown.setAttribute("for", input.id);
    const set = (to) => {
      input.value = to;
      shown.textContent = input.value;
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.addEventListener("input", () => { set(input.value); changed(Number(input.value)); });
    set(value);
    return { line, input, set, get value() { return Number(input.value); } };
  };
  /** A choice among values with texts; pairs keep the order of values that are numbers. */
  const select = (label, options, changed) => {
    const input = html("select");
    const list = Array.isArray(options) ? options : Object.entries(options);
    for (const [value, text] of list) {
      input.append(html("option", { value, textContent: text }));
    }
    input.addEventListener("change", () => changed(input.value));
    return { line: labelled(label, input), input };
  };
  /** A choice of the network; `changed` receives its data as soon as they are loaded. */
  const networkSelect = ({ facts, data, status }, changed) => {
    let used = Object.keys(facts.networks)[0];
    const chooser = select(TEXT.network, facts.networks, async (name) => {
      const isChosen = () => chooser.input.value === name; // another one may be, meanwhile
      status.textContent = TEXT.loading;
      try {
        const network = await data(name);
        if (!isChosen()) return;
        used = name;
        status.textContent = "";
        await changed(network, name);
      } catch (error) {
        if (!isChosen()) return;
        chooser.input.value = used; // so that the other one can be chosen again
        status.textContent = fill(TEXT.failed, { what: error.message });
      }
    });
    return chooser;
  };
  const check = (label, checked, changed) => {
    const input = html("input", { type: "checkbox", checked });
    input.addEventListener("change", () => changed(input.checked));
    return { line: labelled(label, input), input };
  };
  const button = (label, pressed) => {
    const element = html("button", { type: "button", textContent: label });
    element.addEventListener("click", pressed);
    return element;
  };
  /** Controls that are hidden until the reader opens their heading. */
  const fold = (label, ...lines) => html("details", {},
    html("summary", { textContent: label }), ...lines);
  /** A sentence that follows the controls, and that screen readers read aloud. */
  const words = () => html("p", { className: "interactive-words", "aria-live": "polite" });

  /** A picture of rows x columns points; paint(color) colors point i with color(i). */
  const picture = (label, columns, rows) => {
    const canvas = html("canvas", {
      width: columns, height: rows, role: "img", "aria-label": label });
    const context = canvas.getContext("2d");
    const paint = (color) => {
      const image = context.createImageData(columns, rows);
      for (let i = 0; i < columns * rows; i++) image.data.set([...color(i), 255], 4 * i);
      context.putImageData(image, 0, 0);
    };
    return { box: html("div", { className: "live-picture" },
      html("p", { textContent: label, "aria-hidden": "true" }), canvas), canvas, paint };
  };
  /** From white (0) to black (1). */
  const gray = (ink) => { const v = 255 * (1 - Math.min(1, Math.max(0, ink))); return [v, v, v]; };
  /** From blue (-1) through white (0) to orange (1). */
  const signed = (v) => (v < 0 ? [255 * (1 + Math.max(-1, v)), 255 * (1 + 0.55 * Math.max(-1, v)), 255]
    : [255, 255 * (1 - 0.6 * Math.min(1, v)), 255 * (1 - Math.min(1, v))]);

  /** A bar for the probability of each class. */
  const bars = (names) => {
    const rows = names.map((name) => {
      const bar = html("span", { className: "live-bar" }), value = html("span");
      return { bar, value, row: html("div", {}, html("span", { textContent: name }),
        html("span", { className: "live-track" }, bar), value) };
    });
    const box = html("div", { className: "live-bars", role: "img" }, ...rows.map((r) => r.row));
    const show = (p, label) => {
      rows.forEach(({ bar, value }, i) => {
        bar.style.width = `${100 * p[i]}%`;
        value.textContent = p[i].toFixed(3);
      });
      box.setAttribute("aria-label", label);
    };
    return { box, show };
  };

  window.dianLive.parts = { labelled, slider, select, networkSelect, check, button, fold, words,
    picture, gray, signed, bars };
})();
