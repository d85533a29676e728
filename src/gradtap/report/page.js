"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const POSITIVE = [213, 94, 0], NEGATIVE = [0, 114, 178];
  const state = { example: 0, layer: data.layers.length - 1, method: 0 };
  const panels = ["activation", "gradient", "attribution"];
  const HINT = "Point at a map or tap it to read a value; with the keyboard, go to a map and press an arrow key.";
  // So many units have a line each, with a name; more stand side by side.
  const LINES = 24;
  const shown = {}, cursor = {};
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

  // Which cell of a map lies at a part of the canvas.
  function cell(map, across, down) {
    const part = (share, count) => Math.min(Math.max(Math.floor(share * count), 0), count - 1);
    return listed(map) ? [0, part(down, map.columns)] : [part(down, map.rows), part(across, map.columns)];
  }

  function listed(map) { return map.units && map.columns <= LINES; }

  function unit(map, i) {
    const classes = data.layers[state.layer].classes;
    if (map.columns === 1 && shown.activation.columns > 1) return "all of them";
    if (classes.length !== map.columns) return String(i);
    return classes[i] === `class ${i}` ? classes[i] : `${i} ${classes[i]}`;
  }

  // A bar for each unit: they lie at no places, so that no picture is below them.
  function bars(canvas, map) {
    const lines = listed(map), count = map.columns, wide = 672;
    canvas.width = lines ? wide : Math.max(wide, count);
    canvas.height = lines ? Math.max(36 * count, 48) : 224;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = dark() ? "#0d1117" : "#ffffff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    const low = Math.min(0, ...map.values), high = Math.max(0, ...map.values), span = high - low || 1;
    const left = lines ? 200 : 0, length = lines ? wide - left - 4 : canvas.height;
    const at = (value) => ((value - low) / span) * length;
    context.font = "24px system-ui, sans-serif";
    context.textBaseline = "middle";
    map.values.forEach((value, i) => {
      const from = at(Math.min(value, 0)), size = at(Math.max(value, 0)) - from, thick = (lines ? canvas.height : canvas.width) / count;
      context.fillStyle = `rgb(${(value > 0 ? POSITIVE : NEGATIVE).join(",")})`;
      if (!lines) return context.fillRect(i * thick, canvas.height - from - size, Math.max(thick * 0.85, 1), size);
      context.fillRect(left + from, i * thick + 4, size, thick - 8);
      context.fillStyle = dark() ? "#e6edf3" : "#1f2328";
      context.fillText(shortened(context, unit(map, i), left - 12), 4, (i + 0.5) * thick);
    });
    context.fillStyle = dark() ? "#9198a1" : "#59636e";
    if (lines) context.fillRect(left + at(0), 0, 1, canvas.height);
    else context.fillRect(0, canvas.height - at(0), canvas.width, 1);
  }

  function shortened(context, text, room) {
    let short = text;
    while (context.measureText(short).width > room) short = `${short.replace("…", "").slice(0, -1)}…`;
    return short;
  }

  // The colours of a map and the values that they stand for.
  function key(name, map, floor) {
    const strip = at(name + "-key");
    strip.hidden = !map || map.units || map.largest === 0;
    if (strip.hidden) return;
    const below = map.values.some((value) => value < 0), above = map.values.some((value) => value > 0);
    const colour = (ink) => `rgb(${ink.join(",")})`, plain = dark() ? "#0d1117" : "#ffffff";
    const parts = [...(below ? [colour(NEGATIVE)] : []), plain, ...(above ? [colour(POSITIVE)] : [])];
    strip.children[1].style.background = `linear-gradient(90deg, ${parts.join(", ")})`;
    strip.children[0].textContent = below ? number(-map.scale) : number(floor);
    strip.children[2].textContent = above ? number(map.scale) : number(floor);
  }

  // What is read of a map: its value at one cell.
  function tell(name, row, column) {
    const map = shown[name];
    cursor[name] = [row, column];
    const mean = map.rows < map.of[0] || map.columns < map.of[1] ? " (mean over a square)" : "";
    const value = number(map.values[row * map.columns + column]);
    if (map.units) at("value").textContent = `${name}, unit ${unit(map, column)}: ${value}${mean}`;
    else {
      const where = map.rows === 1 ? `place ${column}` : `row ${row}, column ${column}`;
      at("value").textContent = `${name}, ${where} of ${map.rows} × ${map.columns}: ${value}${mean}`;
    }
  }

  // A frame around the cell that the keyboard is at.
  function frame(name) {
    const map = shown[name], canvas = at(name), [row, column] = cursor[name];
    const high = canvas.height / (listed(map) ? map.columns : map.rows), wide = canvas.width / (listed(map) ? 1 : map.columns);
    const context = canvas.getContext("2d"), down = listed(map) ? column : row, across = listed(map) ? 0 : column;
    for (const [colour, width] of [["#000000", 4], ["#ffffff", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.strokeRect(across * wide, down * high, wide, high);
    }
  }

  function draw(name, map) {
    const canvas = at(name), scale = at(name + "-scale");
    shown[name] = map ? unpacked(map) : null;
    if (!map) key(name, null, 0);
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
    const low = map.values.reduce((a, b) => Math.min(a, b), Infinity), high = map.values.reduce((a, b) => Math.max(a, b), -Infinity);
    const parts = map.units ? "units" : "places";
    scale.textContent = `${number(low)} to ${number(high)}`;
    canvas.setAttribute("aria-label", `${name} of ${layer.address}, ${example.name}: ${map.rows} by ${map.columns} ${parts}, from ${number(low)} to ${number(high)}`);
    // Activations that never fall to zero are told apart from their least one on.
    const floor = name === "activation" && low > 0 && map.scale > low ? low : 0;
    key(name, map, floor);
    if (map.units) return bars(canvas, map);
    const under = ground(width, height), image = context.createImageData(width, height);
    const over = picture && at("overlay").checked ? 0.9 : 1;
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
  }

  function drawAll() {
    const layer = data.layers[state.layer], example = data.examples[state.example], method = data.methods[state.method];
    const look = example.looks[layer.address];
    draw("activation", look.activation);
    draw("gradient", look.gradient);
    draw("attribution", look.attributions[method]);
    for (const name of panels) {
      const map = shown[name], what = name === "attribution" ? method || "no method" : name;
      at(`${name}-name`).textContent = map && map.over ? `${what}, ${map.over}` : what;
      delete cursor[name];
    }
    at("value").textContent = HINT;
    at("said").replaceChildren(...(method ? [said(method)] : []));
    at("paper").textContent = `Printed: ${example.name} at ${layer.address}, as on the screen. The page holds ${counted(data.examples.length, "example")} at ${counted(data.layers.length, "layer")}.`;
    at("address").textContent = `${layer.address}  ${layer.kind} ${layer.shape}`;
    at("layer").value = state.layer;
    at("layer").setAttribute("aria-valuetext", layer.address);
    mark("examples", "aria-checked", state.example);
    mark("methods", "aria-selected", state.method);
  }

  function counted(count, what) { return `${count} ${what}${count === 1 ? "" : "s"}`; }

  function said(method) {
    const line = document.createElement("span"), name = document.createElement("b");
    name.textContent = method;
    line.append(name, `: ${data.said[method] || ""} Orange speaks for the target, blue against it.`);
    return line;
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
    at("target").textContent = `Target: ${one.target}: ${one.score}`;
    at("prediction").replaceChildren(...one.prediction.map(([name, score]) => {
      const line = document.createElement("li");
      line.textContent = `${name}: ${score}`;
      return line;
    }));
    at("shown").replaceChildren();
    picture = null;
    if (!one.picture) return drawAll();
    const image = new Image();
    image.alt = one.name;
    image.onload = () => { picture = image; pixelated(image); drawAll(); };
    image.src = one.picture;
    at("shown").append(image);
    drawAll();
  }

  // Few pixels are shown large, and as they are.
  function pixelated(image) {
    if (Math.max(image.naturalWidth, image.naturalHeight) < 96) image.classList.add("small");
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
        image.onload = () => pixelated(image);
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
    const point = (event) => {
      const map = shown[name];
      if (!map) return;
      const box = canvas.getBoundingClientRect();
      tell(name, ...cell(map, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height));
    };
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("keydown", (event) => {
      const map = shown[name], step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (!step || !map || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const [row, column] = cursor[name] || [0, 0], first = !cursor[name];
      const [down, across] = map.units ? [0, step[0] + step[1]] : step;
      const inside = (place, count) => Math.min(Math.max(place, 0), count - 1);
      draw(name, map);
      if (first) tell(name, 0, 0);
      else tell(name, inside(row + down, map.rows), inside(column + across, map.columns));
      frame(name);
    });
    canvas.addEventListener("blur", () => { if (shown[name]) draw(name, shown[name]); });
  });
  at("layer").max = data.layers.length - 1;
  at("layer").addEventListener("input", (event) => { state.layer = Number(event.target.value); drawAll(); });
  at("overlay").addEventListener("change", drawAll);
  at("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    drawAll();
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, button, summary, a, canvas") || event.ctrlKey || event.metaKey || event.altKey) return;
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
