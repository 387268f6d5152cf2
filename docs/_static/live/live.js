/* Live figures wait for their button: only then is anything loaded that runs a network.
   Weights are scripts, which a page that is opened as a file may load, too. */
"use strict";
(() => {
  const TEXT = {
    file: tr("A page that is opened as a file cannot run this network. Serve the site "
      + "(make serve). The recorded result is shown."),
    noWasm: tr("This browser has no WebAssembly. The recorded result is shown."),
    loading: tr("Loading …"),
    failed: tr("{what}. The recorded result is shown."),
    missing: tr("{file} could not be loaded"),
  };
  /** Put values in the places of a text, which are written {name}. */
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

  const html = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("aria-") || ["for", "role"].includes(key)) element.setAttribute(key, value);
      else element[key] = value;
    }
    element.append(...children);
    return element;
  };

  const root = new URL(".", document.currentScript.src), given = {}, asked = {};
  const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  /** A script of weights calls this: numbers of 32 bits, or bytes of images. */
  const give = (name, { tensors, ...facts }, text) => {
    const bytes = decode(text), found = {};
    for (const [key, [at, ...shape]] of Object.entries(tensors)) {
      const size = shape.reduce((a, b) => a * b, 1);
      found[key] = name === "images" ? bytes.subarray(at, at + size)
        : new Float32Array(bytes.buffer, 4 * at, size);
    }
    given[name] = { ...facts, tensors: found };
  };

  /** Load a script once; what fails may be tried again. */
  const script = (path, version) => asked[path] ??= new Promise((done, fail) => {
    const element = html("script", { src: new URL(`${path}?v=${version}`, root).href });
    element.onload = done;
    element.onerror = () => {
      delete asked[path];
      element.remove();
      fail(new Error(fill(TEXT.missing, { file: path })));
    };
    document.head.append(element);
  });

  const NEEDS = {
    reader: ["networks.js", "picker.js", "reader.js"],
    attention: ["networks.js", "picker.js", "attention.js"],
    denoise: ["sampler.js", "picker.js", "denoise.js"],
  };
  const FIRST = { reader: true, attention: true, denoise: false };

  const prepare = (figure) => {
    const facts = JSON.parse(figure.querySelector("script").textContent);
    const kind = figure.dataset.live, button = figure.querySelector(".live-start button");
    const status = figure.querySelector(".live-status");
    const data = async (name) => {
      await script(`data/${name}.js`, facts.data[`${name}.js`]);
      return given[name];
    };
    status.textContent = "";
    if (kind === "denoise" && location.protocol === "file:") {
      status.textContent = TEXT.file;
      return;
    }
    if (typeof WebAssembly === "undefined" && kind === "denoise") {
      status.textContent = TEXT.noWasm;
      return;
    }
    figure.querySelectorAll(".live-start [hidden]").forEach((part) => { part.hidden = false; });
    button.addEventListener("click", async () => {
      button.disabled = true;
      status.textContent = TEXT.loading;
      try {
        const first = Object.keys(facts.networks)[0];
        for (const name of NEEDS[kind]) await script(name, facts.scripts[name]);
        const [images] = await Promise.all([data("images"), FIRST[kind] && data(first)]);
        const box = figure.querySelector(".live-box");
        await window.dianLive.figures[kind]({ figure, box, facts, images, data, status, root });
        figure.classList.add("live-runs");
        figure.querySelector(".live-start").after(status);
        figure.querySelector(".live-start").remove();
        status.textContent = "";
        const controls = [...box.querySelectorAll("button, input, select")];
        controls.find((one) => one.checkVisibility() && !one.disabled)?.focus({ preventScroll: true });
      } catch (error) {
        status.textContent = fill(TEXT.failed, { what: error.message });
        button.disabled = false;
      }
    });
  };

  window.dianLive = { give, given, html, script, fill, figures: {} };
  document.querySelectorAll("figure.live:not(.spot)").forEach(prepare);
})();
