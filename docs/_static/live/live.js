/* A live figure waits for its button. Only then are the scripts and the weights of a network
   loaded. Weights are scripts, because a page that is opened as a file cannot fetch files. */
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
  /** Replace each {name} in a text by the value of that name. */
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

  /** Make an element; each attribute is a property of it, or an attribute of its tag. */
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

  /** Keep the arrays of a script of data, which calls this: 32-bit numbers, or bytes of images. */
  const give = (name, { tensors, ...facts }, text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0)), found = {};
    for (const [key, [at, ...shape]] of Object.entries(tensors)) {
      const size = shape.reduce((a, b) => a * b, 1);
      found[key] = name === "images" ? bytes.subarray(at, at + size)
        : new Float32Array(bytes.buffer, 4 * at, size);
    }
    given[name] = { ...facts, tensors: found };
  };

  /** Load a script once; after an error it can be loaded again. */
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

  // Each script uses those before it.
  const SCRIPTS = {
    reader: ["arithmetic.js", "recurrent.js", "parts.js", "picker.js", "reader.js"],
    attention: ["arithmetic.js", "transformer.js", "parts.js", "picker.js", "attention.js"],
    denoise: ["sampler.js", "parts.js", "picker.js", "denoise.js"],
  };

  /** Return why a figure cannot run in this browser, or an empty text. */
  const obstacle = (kind) => {
    if (kind !== "denoise") return ""; // the others need neither fetch nor WebAssembly
    if (location.protocol === "file:") return TEXT.file;
    return typeof WebAssembly === "undefined" ? TEXT.noWasm : "";
  };

  const prepare = (figure) => {
    const facts = JSON.parse(figure.querySelector("script").textContent);
    const kind = figure.dataset.live, button = figure.querySelector(".live-start button");
    const status = figure.querySelector(".live-status"), box = figure.querySelector(".live-box");
    const first = Object.keys(facts.networks)[0];
    const data = async (name) => {
      await script(`data/${name}.js`, facts.data[`${name}.js`]);
      return given[name];
    };
    status.textContent = obstacle(kind);
    if (status.textContent) return;
    figure.querySelectorAll(".live-start [hidden]").forEach((part) => { part.hidden = false; });
    button.addEventListener("click", async () => {
      button.disabled = true;
      status.textContent = TEXT.loading;
      try {
        for (const name of SCRIPTS[kind]) await script(name, facts.scripts[name]);
        const [content, network] = await Promise.all([data("images"), data(first)]);
        const images = { ...content, classes: facts.classes };
        window.dianLive.figures[kind]({ figure, box, facts, images, network, data, status, root });
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
