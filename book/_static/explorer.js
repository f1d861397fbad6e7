// The pictures of lib/catapults/book/explorer.py: one training at a time, chosen by a slider. No library, no network.
(() => {
  const NS = "http://www.w3.org/2000/svg";
  const WIDTH = 640, LEFT = 64, RIGHT = 46, TOP = 10, UPPER = 210, GAP = 22, LOWER = 130, BOTTOM = 42;
  const HEIGHT = TOP + UPPER + GAP + LOWER + BOTTOM;

  const element = (name, attributes, text) => {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const plain = (value) => (value === null ? "–" : Number(value.toPrecision(3)).toString());

  function start(box) {
    const data = JSON.parse(box.querySelector("script").textContent);
    const x = (t) => LEFT + (t / data.iterations) * (WIDTH - LEFT - RIGHT);
    const scale = ([low, high], top, height) => (value) =>
      top + height * (1 - Math.log(value / low) / Math.log(high / low));
    const loss = scale(data.lossRange, TOP, UPPER);
    const norm = scale(data.normRange, TOP + UPPER + GAP, LOWER);

    function ticks(svg, range, y, name, top, height) {
      for (let power = Math.ceil(Math.log10(range[0])); power <= Math.log10(range[1]); power++) {
        const value = 10 ** power;
        svg.append(element("line", { x1: LEFT - 5, x2: LEFT, y1: y(value), y2: y(value), class: "axis" }));
        svg.append(element("text", { x: LEFT - 9, y: y(value) + 4, "text-anchor": "end" }, plain(value)));
      }
      const middle = top + height / 2;
      svg.append(element("text", { transform: `translate(14 ${middle}) rotate(-90)`, "text-anchor": "middle" }, name));
      svg.append(element("path", { d: `M${LEFT} ${top}V${top + height}H${WIDTH - RIGHT}`, class: "axis" }));
    }

    function curve(svg, values, y, kind, clip) {
      let path = "";
      values.forEach((value, t) => {
        if (value !== null && value > 0) path += `${path ? "L" : "M"}${x(t).toFixed(1)} ${y(value).toFixed(1)}`;
      });
      svg.append(element("path", { d: path, class: kind, "clip-path": `url(#${clip})` }));
    }

    function picture(position) {
      const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": position.sentence });
      [["upper", TOP, UPPER], ["lower", TOP + UPPER + GAP, LOWER]].forEach(([name, y, height]) => {
        const clip = element("clipPath", { id: `explorer-${name}` });
        clip.append(element("rect", { x: LEFT, y, width: WIDTH - LEFT - RIGHT, height }));
        svg.append(clip);
      });
      ticks(svg, data.lossRange, loss, "training loss", TOP, UPPER);
      ticks(svg, data.normRange, norm, "norm ‖K‖", TOP + UPPER + GAP, LOWER);
      for (let t = 0; t <= data.iterations; t += 10)
        svg.append(element("text", { x: x(t), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, t));
      svg.append(element("text", { x: x(data.iterations / 2), y: HEIGHT - 6, "text-anchor": "middle" }, "iteration"));
      curve(svg, position.loss, loss, "loss", "explorer-upper");
      curve(svg, position.top, loss, "top", "explorer-upper");
      curve(svg, position.rest, loss, "rest", "explorer-upper");
      curve(svg, position.norm, norm, "norm", "explorer-lower");
      const line = Math.max(TOP + UPPER + GAP, Math.min(norm(position.line), TOP + UPPER + GAP + LOWER));
      svg.append(element("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: line, y2: line, class: "limit" }));
      svg.append(element("text", { x: WIDTH - RIGHT + 5, y: line + 4 }, "n/η"));
      [["loss", "loss"], ["top", data.top], ["rest", data.rest]].forEach(([kind, name], row) => {
        const y = TOP + 10 + 18 * row;
        svg.append(element("line", { x1: WIDTH - RIGHT - 96, x2: WIDTH - RIGHT - 66, y1: y, y2: y, class: kind }));
        svg.append(element("text", { x: WIDTH - RIGHT - 60, y: y + 4 }, name));
      });
      return svg;
    }

    const [slider, output, sentence] = ["input", "output", ".explorer-sentence"].map((s) => box.querySelector(s));
    const [place, body] = [".explorer-picture", "tbody"].map((s) => box.querySelector(s));
    function show() {
      const position = data.positions[Number(slider.value)];
      place.replaceChildren(picture(position));
      output.textContent = position.rate;
      slider.setAttribute("aria-valuetext", position.rate);
      sentence.textContent = position.sentence;
      body.replaceChildren(
        ...position.loss.map((_, t) => {
          const row = document.createElement("tr");
          [t, position.loss[t], position.top[t], position.rest[t], position.norm[t]].forEach((value) => {
            row.insertCell().textContent = plain(value);
          });
          return row;
        }),
      );
    }
    box.querySelectorAll("[hidden]").forEach((part) => part.removeAttribute("hidden"));
    slider.value = data.start;
    slider.addEventListener("input", show);
    show();
  }

  function turnPages(box) {
    const pages = box.querySelectorAll("template");
    const [slider, output, sentence, place] = ["input", "output", ".explorer-sentence", ".explorer-picture"].map((s) =>
      box.querySelector(s),
    );
    function show() {
      const page = pages[Number(slider.value)];
      place.replaceChildren(page.content.cloneNode(true));
      output.textContent = page.dataset.name;
      slider.setAttribute("aria-valuetext", page.dataset.name);
      sentence.textContent = page.dataset.sentence;
    }
    box.querySelectorAll("[hidden]").forEach((part) => part.removeAttribute("hidden"));
    slider.value = 0;
    slider.addEventListener("input", show);
    show();
  }

  document.addEventListener("DOMContentLoaded", () =>
    document.querySelectorAll(".explorer").forEach((box) =>
      (box.classList.contains("explorer-pages") ? turnPages : start)(box),
    ),
  );
})();
