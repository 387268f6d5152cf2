/* A recorded network removes noise, by onnxruntime-web, in one thread of this page. */
"use strict";
(() => {
  const { html, fill, parts, sampler, script } = window.dianLive, SIZE = 28 * 28;
  const TEXT = {
    notLoaded: tr("The network could not be loaded ({status})"),
    noisy: tr("Noisy image"),
    clean: tr("Predicted clean image"),
    progress: tr("Completed steps"),
    steps: tr("Steps"),
    eta: tr("η (new noise)"),
    seed: tr("Seed"),
    other: tr("Second seed"),
    mix: tr("Interpolation to the second seed"),
    weight: tr("Guidance weight"),
    method: tr("Sampler"),
    methods: { ddim: tr("DDIM"), ddpm: tr("DDPM, all timesteps") },
    clip: tr("Clip the predicted image to [−1, 1]"),
    label: tr("Class"),
    none: tr("None"),
    fill: tr("Generate"),
    fills: { none: tr("The whole image"), lower: tr("The lower half"), upper: tr("The upper half") },
    loading: tr("Loading the runtime and the network …"),
    running: tr("Running …"),
    done: tr("Seed {seed}, {steps} steps of {method}: done in {seconds} s."),
    recorded: tr("Recorded Fréchet distance of {steps} such steps: {value} ± {error}."),
    replaced: tr("After each step, the known half is replaced by the noised given image. This "
      + "inpainting by replacement only approximates the conditional distribution."),
    cancelled: tr("Cancelled. The memory of the network is released."),
    failed: tr("{what}."),
    start: tr("Denoise"),
    cancel: tr("Cancel"),
    network: tr("Network"),
  };

  /** Open a recorded network; predict(x, t, classes) takes one image for each class. */
  const open = async ({ facts, root, name, schedule }) => {
    const address = (file) => new URL(`runtime/${file}?v=${facts.runtime}`, root).href;
    await script("runtime/ort.wasm.min.js", facts.runtime);
    const { ort } = window;
    Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: {
      mjs: address("ort-wasm-simd-threaded.mjs"), wasm: address("ort-wasm-simd-threaded.wasm") } });
    const answer = await fetch(new URL(`data/${name}.onnx?v=${facts.data[`${name}.onnx`]}`, root));
    if (!answer.ok) throw new Error(fill(TEXT.notLoaded, answer));
    const session = await ort.InferenceSession.create(await answer.arrayBuffer(),
      { executionProviders: ["wasm"] });
    const predict = async (x, t, classes = [null]) => {
      const n = classes.length, batch = new Float32Array(n * SIZE);
      for (let i = 0; i < n; i++) batch.set(x, i * SIZE);
      const numbers = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [n]);
      const feeds = { x: new ort.Tensor("float32", batch, [n, 1, 28, 28]),
        t: numbers(Array(n).fill(t)) };
      if (schedule.nullClass !== null) feeds.y = numbers(classes.map((c) => c ?? schedule.nullClass));
      const { prediction } = await session.run(feeds);
      const found = Float32Array.from(prediction.data);
      prediction.dispose();
      return Array.from({ length: n }, (_, i) => found.subarray(i * SIZE, (i + 1) * SIZE));
    };
    return { predict, release: () => session.release() };
  };
  window.dianLive.denoise = { open };

  window.dianLive.figures.denoise = async ({ box, facts, images, data, status, root }) => {
    const chosen = { name: Object.keys(facts.networks)[0], method: "ddim", clip: true, half: "none",
      label: "none", known: null };
    let network = null, stopped = false, runs = false;
    const noisy = parts.picture(TEXT.noisy, 28, 28);
    const clean = parts.picture(TEXT.clean, 28, 28);
    const told = parts.words(), bar = html("progress", { value: 0, "aria-label": TEXT.progress });
    const draw = (picture, x) => picture.paint((i) => parts.grey((x[i] + 1) / 2));
    const steps = parts.slider(TEXT.steps, { min: 10, max: 100, step: 10, value: 50 }, () => {});
    const eta = parts.slider(TEXT.eta, { min: 0, max: 1, step: 0.1, value: 0 }, () => {});
    const seed = parts.slider(TEXT.seed, { min: 0, max: 99, value: 3 }, () => {});
    const other = parts.slider(TEXT.other, { min: 0, max: 99, value: 4 }, () => {});
    const mix = parts.slider(TEXT.mix, { min: 0, max: 1, step: 0.05, value: 0 }, () => {});
    const weight = parts.slider(TEXT.weight, { min: 0, max: 4, step: 0.5, value: 1 }, () => {});
    const method = parts.select(TEXT.method, TEXT.methods, (value) => {
      chosen.method = value;
      for (const { input } of [steps, eta]) input.disabled = value === "ddpm";
    });
    const clip = parts.check(TEXT.clip, true,
      (on) => { chosen.clip = on; });
    const label = parts.select(TEXT.label, [["none", TEXT.none], ...images.classes.entries()],
      (value) => { chosen.label = value; });
    const half = parts.select(TEXT.fill, TEXT.fills, (value) => { chosen.half = value; picker.box.hidden = value === "none"; });
    const picker = parts.picker(images, (one) => { chosen.known = one.pixels; });
    picker.choose(0);
    picker.box.hidden = true;

    const close = async () => {
      const old = network;
      network = null;
      await old?.release();
    };
    const offer = (schedule) => {
      for (const { line } of [label, weight]) line.hidden = schedule.nullClass === null;
    };
    const run = async () => {
      if (runs) return;
      [runs, stopped] = [true, false];
      start.disabled = true;
      cancel.disabled = false;
      bar.removeAttribute("value");
      told.textContent = network ? TEXT.running : TEXT.loading;
      try {
        const schedule = await data(chosen.name);
        offer(schedule);
        network ??= await open({ facts, root, name: chosen.name, schedule });
        if (stopped) throw new Error(TEXT.cancelled);
        told.textContent = TEXT.running;
        const own = seed.value, first = sampler.normal(own, 0, SIZE);
        const x_T = mix.value ? sampler.between(first, sampler.normal(other.value, 0, SIZE), mix.value)
          : first;
        const guide = schedule.nullClass !== null && chosen.label !== "none";
        const predict = async (x, t) => {
          const found = await network.predict(x, t, guide ? [Number(chosen.label), null] : [null]);
          return guide ? sampler.guided(found[0], found[1], weight.value) : found[0];
        };
        const known = chosen.half === "none" ? null : {
          image: Array.from(chosen.known, (v) => 2 * v / 255 - 1), noise: sampler.normal(own, -2, SIZE),
          mask: Array.from({ length: SIZE }, (_, i) => (i < SIZE / 2) === (chosen.half === "lower")) };
        const options = { steps: steps.value, eta: eta.value, clip: chosen.clip, known,
          noise: (t) => sampler.normal(own, t, SIZE) };
        const begun = performance.now();
        let last = null, seen = begun;
        for await (const step of sampler[chosen.method](schedule, predict, x_T, options)) {
          last = step;
          // The page stays alive: each frame is drawn, and the button is heard.
          if (performance.now() - seen > 30) {
            draw(noisy, step.x);
            draw(clean, step.clean);
            [bar.value, bar.max] = [step.done, step.of];
            await new Promise((go) => { setTimeout(go); });
            seen = performance.now();
          }
          if (stopped) throw new Error(TEXT.cancelled);
        }
        draw(noisy, last.x);
        draw(clean, last.clean);
        [bar.value, bar.max] = [last.of, last.of];
        const seconds = (performance.now() - begun) / 1000;
        told.textContent = fill(TEXT.done, { seed: own, steps: last.of,
          method: chosen.method.toUpperCase(), seconds: seconds.toFixed(1) });
        const plain = chosen.method === "ddim" && options.eta === 0 && options.clip && !known && !guide;
        const recorded = plain ? schedule.recorded[last.of] : null;
        if (recorded) {
          const [value, error] = recorded.map((v) => v.toFixed(0));
          told.textContent += ` ${fill(TEXT.recorded, { steps: last.of, value, error })}`;
        }
        if (known) told.textContent += ` ${TEXT.replaced}`;
        box.dataset.seconds = seconds;
        box.dataset.image = JSON.stringify(Array.from(last.x, (v) => Math.round(1e6 * v) / 1e6));
      } catch (error) {
        told.textContent = stopped ? TEXT.cancelled : fill(TEXT.failed, { what: error.message });
        bar.value = 0;
        await close();
      }
      runs = false;
      start.disabled = false;
      cancel.disabled = true;
    };
    const start = parts.button(TEXT.start, run);
    const cancel = parts.button(TEXT.cancel, () => { stopped = true; });
    cancel.disabled = true;
    const chooser = parts.select(TEXT.network, facts.networks, async (name) => {
      chosen.name = name;
      stopped = true;
      await close();
      offer(await data(name));
    });
    chooser.line.hidden = Object.keys(facts.networks).length === 1;
    label.line.hidden = weight.line.hidden = true;
    addEventListener("pagehide", close);
    box.append(chooser.line, method.line, steps.line, eta.line, clip.line, seed.line, other.line, mix.line,
      label.line, weight.line, half.line, picker.box,
      html("div", { className: "live-run" }, start, cancel, bar),
      html("div", { className: "live-pictures" }, noisy.box, clean.box), told);
    draw(noisy, sampler.normal(3, 0, SIZE));
    draw(clean, new Float32Array(SIZE).fill(-1));
    status.textContent = "";
    run();
  };
})();
