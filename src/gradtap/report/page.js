"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const POSITIVE = [213, 94, 0], NEGATIVE = [0, 114, 178];
  const state = { example: 0, layer: data.layers.length - 1, method: 0 };
  const panels = ["activation", "gradient", "attribution"];
  const shown = {};
  let picture = null;

  // A map is whole numbers of two bytes; see pictures.py.
  function unpacked(map) {
    if (!map.values) {
      const bytes = Uint8Array.from(atob(map.numbers), (c) => c.charCodeAt(0));
      const view = new DataView(bytes.buffer);
      map.values = Float64Array.from({ length: bytes.length / 2 }, (_, i) => (view.getInt16(2 * i, true) / 32767) * map.largest);
    }
    return map;
  }

  function number(x) { return x === 0 ? "0" : Number(x.toPrecision(4)).toString(); }

  function dark() {
    const theme = document.documentElement.dataset.theme;
    return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  // The picture as faded grey values, on the canvas's size.
  function ground(width, height) {
    const plain = dark() ? 13 : 255;
    const grey = new Float64Array(width * height).fill(plain);
    if (!picture || !at("overlay").checked) return grey;
    const page = document.createElement("canvas");
    page.width = width; page.height = height;
    const context = page.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0, width, height);
    const pixels = context.getImageData(0, 0, width, height).data;
    for (let i = 0; i < grey.length; i++) {
      const light = 0.2126 * pixels[4 * i] + 0.7152 * pixels[4 * i + 1] + 0.0722 * pixels[4 * i + 2];
      grey[i] = dark() ? 0.65 * light : 64 + 0.75 * light;
    }
    return grey;
  }

  function draw(name, map) {
    const canvas = at(name), scale = at(name + "-scale");
    shown[name] = map ? unpacked(map) : null;
    const strip = map && map.rows === 1;
    const ratio = map ? (strip ? 0.2 : map.of[0] / map.of[1]) : 1;
    const width = 336, height = Math.max(24, Math.round(width * Math.min(ratio, 3)));
    canvas.width = width; canvas.height = height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const layer = data.layers[state.layer], example = data.examples[state.example];
    if (!map) {
      context.fillStyle = dark() ? "#9198a1" : "#59636e";
      context.font = "15px system-ui, sans-serif";
      context.textAlign = "center";
      context.fillText("not at this layer", width / 2, height / 2);
      scale.textContent = "";
      canvas.setAttribute("aria-label", `${name} of ${layer.address}: cannot be computed at this layer`);
      return;
    }
    const under = ground(width, height), image = context.createImageData(width, height);
    const over = picture && at("overlay").checked ? 0.9 : 1;
    const low = map.values.reduce((a, b) => Math.min(a, b), Infinity), high = map.values.reduce((a, b) => Math.max(a, b), -Infinity);
    // Activations that never fall to zero are told apart from their least one on.
    const floor = name === "activation" && low > 0 && map.scale > low ? low : 0;
    for (let y = 0; y < height; y++) {
      const row = Math.floor((y * map.rows) / height);
      for (let x = 0; x < width; x++) {
        const value = map.values[row * map.columns + Math.floor((x * map.columns) / width)];
        const strength = over * Math.min((Math.abs(value) - floor) / (map.scale - floor), 1), ink = value > 0 ? POSITIVE : NEGATIVE;
        const i = y * width + x;
        for (let c = 0; c < 3; c++) image.data[4 * i + c] = (1 - strength) * under[i] + strength * ink[c];
        image.data[4 * i + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
    scale.textContent = `${number(low)} to ${number(high)}`;
    canvas.setAttribute("aria-label", `${name} of ${layer.address}, ${example.name}: ${map.rows} by ${map.columns} places, from ${number(low)} to ${number(high)}`);
  }

  function drawAll() {
    const layer = data.layers[state.layer], example = data.examples[state.example], method = data.methods[state.method];
    const look = example.looks[layer.address];
    draw("activation", look.activation);
    draw("gradient", look.gradient);
    draw("attribution", look.attributions[method]);
    at("method-name").textContent = method || "no method";
    at("address").textContent = `${layer.address}  ${layer.kind} ${layer.shape}`;
    at("layer").value = state.layer;
    at("layer").setAttribute("aria-valuetext", layer.address);
    mark("examples", "aria-checked", state.example);
    mark("methods", "aria-selected", state.method);
  }

  function mark(id, attribute, chosen) {
    [...at(id).children].forEach((button, i) => {
      button.setAttribute(attribute, String(i === chosen));
      button.tabIndex = i === chosen ? 0 : -1;
    });
  }

  function choose(example) {
    state.example = (example + data.examples.length) % data.examples.length;
    const one = data.examples[state.example];
    at("target").textContent = `Target: ${one.target}, ${one.score}`;
    at("prediction").replaceChildren(...one.prediction.map(([name, score]) => {
      const line = document.createElement("li");
      line.textContent = `${name}  ${score}`;
      return line;
    }));
    at("shown").replaceChildren();
    picture = null;
    if (!one.picture) return drawAll();
    const image = new Image();
    image.alt = one.name;
    image.onload = () => { picture = image; drawAll(); };
    image.src = one.picture;
    at("shown").append(image);
    drawAll();
  }

  function buttons(id, items, role, act) {
    at(id).replaceChildren(...items.map((item, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("role", role);
      button.addEventListener("click", () => act(i));
      button.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        event.stopPropagation();
        const next = (i + step + items.length) % items.length;
        act(next);
        at(id).children[next].focus();
      });
      if (item.picture) {
        const image = document.createElement("img");
        image.src = item.picture;
        image.alt = "";
        button.append(image);
      }
      button.append(item.name);
      return button;
    }));
  }

  function walk(step) {
    state.layer = Math.min(Math.max(state.layer + step, 0), data.layers.length - 1);
    drawAll();
  }

  panels.forEach((name) => {
    const canvas = at(name);
    canvas.addEventListener("pointermove", (event) => {
      const map = shown[name];
      if (!map) return;
      const box = canvas.getBoundingClientRect();
      const place = (offset, size, count) => Math.min(Math.max(Math.floor((offset / size) * count), 0), count - 1);
      const row = place(event.clientY - box.top, box.height, map.rows), column = place(event.clientX - box.left, box.width, map.columns);
      const mean = map.rows < map.of[0] || map.columns < map.of[1] ? " (mean over a square)" : "";
      const where = map.rows === 1 ? `place ${column}` : `row ${row}, column ${column}`;
      at("value").textContent = `${name}, ${where} of ${map.rows} × ${map.columns}: ${number(map.values[row * map.columns + column])}${mean}`;
    });
  });
  at("layer").max = data.layers.length - 1;
  at("layer").addEventListener("input", (event) => { state.layer = Number(event.target.value); drawAll(); });
  at("overlay").addEventListener("change", drawAll);
  at("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    drawAll();
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, button, summary, a") || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = { ArrowRight: () => walk(1), ArrowLeft: () => walk(-1), ArrowDown: () => choose(state.example + 1), ArrowUp: () => choose(state.example - 1) }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
  buttons("examples", data.examples, "radio", choose);
  buttons("methods", data.methods.map((name) => ({ name })), "tab", (i) => { state.method = i; drawAll(); });
  choose(0);
})();
