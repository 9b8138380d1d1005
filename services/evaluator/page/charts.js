// Line charts as inline SVG: pointer or arrow keys read a point, the text below says it.

const WIDTH = 360, HEIGHT = 190, LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 30;

function niceTicks(low, high, most) {
  if (high === low) { const room = Math.abs(low) * 0.1 || 1; low -= room; high += room; }
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const ticks = [];
  for (let k = Math.floor(low / step); (k - 1) * step < high; k++) ticks.push(Number((k * step).toPrecision(12)));
  return ticks;
}

// lines: [{name, points: [[x, y], ...]}], x ascending and the same for every line that has a point there; alarms: [x, ...]
function lineChart(title, unit, xName, lines, alarms = []) {
  const drawn = lines.filter((line) => line.points.length > 0);
  const points = drawn.flatMap((line) => line.points);
  if (points.length === 0) return null;
  const xs = [...new Set(points.map((p) => p[0]))].sort((a, b) => a - b);
  const yTicks = niceTicks(Math.min(...points.map((p) => p[1])), Math.max(...points.map((p) => p[1])), 4);
  const x0 = xs[0], x1 = xs.length > 1 ? xs[xs.length - 1] : xs[0] + 1;
  const y0 = yTicks[0], y1 = yTicks[yTicks.length - 1];
  const px = (x) => LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
  const py = (y) => HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);
  const cursor = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  const raised = [...new Set(alarms)].filter((x) => x >= x0 && x <= x1);
  const marks = raised.map((x) => svg("line", { class: "alarm", x1: px(x), x2: px(x), y1: TOP, y2: HEIGHT - BOTTOM }));
  const label = `${title}. ${drawn.map((line) => summary(line)).join("; ")}. Arrow keys read single values.`;
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", tabindex: "0", "aria-label": label },
    ...axes(yTicks, xs, px, py, xName), ...marks, ...drawn.map((line) => curve(line, lines.indexOf(line), px, py)), cursor);
  const read = el("p", { class: "read", "aria-live": "polite" }, latest(drawn, xs, xName));
  readable(picture, cursor, read, drawn, xs, xName, px);
  return el("figure", {}, el("figcaption", {}, unit ? `${title} (${unit})` : title), picture,
    drawn.length > 1 ? legend(drawn, lines) : null, read);
}

function summary(line) {
  const first = line.points[0], last = line.points[line.points.length - 1];
  return `${line.name} from ${short(first[1])} to ${short(last[1])}`;
}

function axes(yTicks, xs, px, py, xName) {
  const parts = [];
  for (const tick of yTicks) {
    parts.push(svg("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: py(tick), y2: py(tick) }));
    parts.push(svg("text", { class: "tick", x: LEFT - 6, y: py(tick) + 4, "text-anchor": "end" }, short(tick)));
  }
  const ends = xs.length > 1 ? [xs[0], xs[xs.length - 1]] : [xs[0]];
  ends.forEach((x, i) => parts.push(
    svg("text", { class: "tick", x: px(x), y: HEIGHT - 12, "text-anchor": i ? "end" : "start" }, short(x))));
  parts.push(svg("text", { class: "tick", x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 12, "text-anchor": "middle" }, xName));
  return parts;
}

function curve(line, index, px, py) {
  const path = line.points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`);
  if (path.length > 1) return svg("polyline", { class: `curve series-${index % 5}`, points: path.join(" ") });
  const [x, y] = line.points[0];
  return svg("circle", { class: `curve series-${index % 5}`, cx: px(x), cy: py(y), r: 3 });
}

function legend(drawn, lines) {
  return el("ul", { class: "legend" }, ...drawn.map((line) => el("li", {},
    svg("svg", { viewBox: "0 0 24 10", "aria-hidden": "true" },
      svg("line", { class: `curve series-${lines.indexOf(line) % 5}`, x1: 0, x2: 24, y1: 5, y2: 5 })), line.name)));
}

function valuesAt(drawn, x, xName) {
  const values = drawn.map((line) => [line.name, line.points.find((p) => p[0] === x)]).filter(([, p]) => p);
  return `${xName} ${short(x)}: ${values.map(([name, p]) => `${name} ${short(p[1])}`).join(", ")}`;
}

function latest(drawn, xs, xName) {
  return valuesAt(drawn, xs[xs.length - 1], xName);
}

function readable(picture, cursor, read, drawn, xs, xName, px) {
  let at = xs.length - 1;
  const show = (index) => {
    at = Math.min(xs.length - 1, Math.max(0, index));
    cursor.setAttribute("x1", px(xs[at]));
    cursor.setAttribute("x2", px(xs[at]));
    cursor.setAttribute("visibility", "visible");
    read.textContent = valuesAt(drawn, xs[at], xName);
  };
  const hide = () => {
    cursor.setAttribute("visibility", "hidden");
    read.textContent = latest(drawn, xs, xName);
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * WIDTH;
    let nearest = 0;
    xs.forEach((value, i) => { if (Math.abs(px(value) - x) < Math.abs(px(xs[nearest]) - x)) nearest = i; });
    show(nearest);
  });
  picture.addEventListener("pointerleave", hide);
  picture.addEventListener("blur", hide);
  picture.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: xs.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    show(moves[event.key]);
  });
}
