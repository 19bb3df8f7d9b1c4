// The sketchpad: strokes are lists [x, y, x, y, ...] in percent of its side. They are sent as they are, while the
// pen is still down, and drawn again on the other end. Gradio gives element, props and trigger.
const paper = element.querySelector(".paper");
const canvas = paper.querySelector("canvas");
const told = element.querySelector(".told");
const PAUSE = 250; // milliseconds between two sendings of one stroke
const ERASER = 3; // radius
const STEPS = 100; // that can be undone
const LONGEST = 8000; // letters of a link
let strokes = []; // each stays as it is once it is drawn, so that past may hold it too
let past = [];
let pen = null; // the stroke being drawn
let erasing = false; // the tool in hand
let eraser = null; // where it was last, while it is down
let sent = 0;

function paint(target, lines) {
  const context = target.getContext("2d");
  const unit = target.width / 100;
  context.lineWidth = (target === canvas ? 1.2 : 4) * unit;
  context.lineCap = context.lineJoin = "round";
  for (const line of lines) {
    context.beginPath();
    context.moveTo(line[0] * unit, line[1] * unit);
    for (let i = 0; i < line.length; i += 2) context.lineTo(line[i] * unit, line[i + 1] * unit);
    context.stroke();
  }
}

function show() {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  paint(canvas, strokes);
  paper.classList.toggle("empty", strokes.length === 0);
  paper.dataset.drawn = strokes.reduce((sum, line) => sum + line.length, 0);
}

function send() {
  sent = Date.now();
  props.value = strokes.map((line) => [...line]);
  trigger("input");
}

function tell(text) {
  told.textContent = text;
}

function remember() {
  past.push(strokes);
  if (past.length > STEPS) past.shift();
}

function replace(lines) {
  remember();
  strokes = lines;
  take(false);
  show();
  send();
}

function take(rubber) {
  erasing = rubber;
  element.querySelector(".pen").ariaPressed = String(!rubber);
  element.querySelector(".eraser").ariaPressed = String(rubber);
  paper.classList.toggle("erasing", rubber);
}

function tenths(value) {
  return Math.round(10 * value) / 10;
}

function place(event) {
  const area = canvas.getBoundingClientRect();
  const percent = (value, start, size) => tenths((100 * (value - start)) / size);
  return [percent(event.clientX, area.left, area.width), percent(event.clientY, area.top, area.height)];
}

// Give what is left of a line when the eraser has been at a place.
function erased(line, [x, y]) {
  const parts = [[]];
  let hit = false;
  for (let i = 0; i < line.length; i += 2) {
    const [fromX, fromY] = i ? [line[i - 2], line[i - 1]] : [line[i], line[i + 1]];
    const steps = Math.max(1, Math.ceil(Math.hypot(line[i] - fromX, line[i + 1] - fromY)));
    for (let step = 1; step <= steps; step++) {
      const atX = fromX + ((line[i] - fromX) * step) / steps;
      const atY = fromY + ((line[i + 1] - fromY) * step) / steps;
      if (Math.hypot(atX - x, atY - y) >= ERASER) parts.at(-1).push(...[atX, atY].map(tenths));
      else {
        hit = true;
        if (parts.at(-1).length) parts.push([]);
      }
    }
  }
  return hit ? parts.filter((part) => part.length) : [line];
}

function erase(event) {
  const to = place(event);
  const steps = Math.max(1, Math.ceil(Math.hypot(to[0] - eraser[0], to[1] - eraser[1]) / ERASER));
  for (let step = 1; step <= steps; step++) {
    const at = [0, 1].map((axis) => eraser[axis] + ((to[axis] - eraser[axis]) * step) / steps);
    strokes = strokes.flatMap((line) => erased(line, at));
  }
  eraser = to;
  show();
}

canvas.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  tell("");
  remember();
  if (erasing) {
    eraser = place(event);
    erase(event);
  } else {
    pen = place(event);
    strokes = [...strokes, pen];
    show();
  }
});
canvas.addEventListener("pointermove", (event) => {
  if (!(pen || eraser) || !event.isPrimary) return;
  if (eraser) erase(event);
  else {
    pen.push(...place(event));
    paint(canvas, [pen.slice(-4)]); // what is new: all of a long drawing with every move would be slow
  }
  if (Date.now() - sent > PAUSE) send();
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => {
    if (!(pen || eraser) || !event.isPrimary) return;
    pen = eraser = null;
    show();
    send();
  });
}

// A drawing in a link, in base64 as addresses take it: of each stroke how many points it has, then each point's way
// from the one before, in tenths of a percent. A number takes seven bits a byte; the eighth says that there is more.
function packed(lines) {
  let bytes = "";
  const put = (number) => {
    for (; number > 127; number >>= 7) bytes += String.fromCharCode((number & 127) | 128);
    bytes += String.fromCharCode(number);
  };
  for (const line of lines) {
    put(line.length / 2);
    const tenfold = line.map((value) => Math.round(10 * Math.min(Math.max(value, 0), 100)));
    tenfold.forEach((value, i) => {
      const way = value - (tenfold[i - 2] ?? 0);
      put(way < 0 ? -2 * way - 1 : 2 * way);
    });
  }
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function unpacked(text) {
  const bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  let at = 0;
  const take = () => {
    let number = 0;
    for (let shift = 0; shift < 28; shift += 7) {
      if (at >= bytes.length) break;
      const byte = bytes.charCodeAt(at++);
      number |= (byte & 127) << shift;
      if (byte < 128) return number;
    }
    throw new Error("damaged");
  };
  const lines = [];
  while (at < bytes.length) {
    const tenfold = [];
    for (let left = 2 * take(); left > 0; left--) {
      const way = take();
      tenfold.push((tenfold.at(-2) ?? 0) + (way % 2 ? -(way + 1) / 2 : way / 2));
    }
    if (tenfold.length) lines.push(tenfold.map((value) => Math.min(Math.max(value / 10, 0), 100)));
  }
  return lines;
}

function openLink() {
  const text = location.hash.match(/^#draw=([\w-]+)$/)?.[1];
  if (!text || text.length > LONGEST) return;
  try {
    replace(unpacked(text));
  } catch {
    tell("The drawing in this link is damaged.");
  }
}

async function link() {
  const text = packed(strokes);
  if (!text) return tell("Draw something first.");
  if (text.length > LONGEST) return tell("Too much ink for a link: save the drawing as a picture.");
  history.replaceState(null, "", `#draw=${text}`);
  try {
    await navigator.clipboard.writeText(`${location.origin}${location.pathname}${location.hash}`); // no token of a Space
    tell("Link copied.");
  } catch {
    tell("The link is in the address bar.");
  }
}

function save() {
  const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
  const context = copy.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, copy.width, copy.height);
  context.drawImage(canvas, 0, 0);
  copy.toBlob((blob) => {
    const anchor = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob) });
    anchor.download = "drawing.png";
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 60000); // some browsers fetch it later
  });
}

function undo() {
  if (!past.length) return;
  strokes = past.pop();
  show();
  send();
}

const tools = { pen: () => take(false), eraser: () => take(true), undo, clear: () => replace([]), save, link };
for (const [name, use] of Object.entries(tools)) {
  element.querySelector(`.${name}`).addEventListener("click", () => {
    tell("");
    use();
  });
}
for (const [name, lines] of Object.entries(props.examples)) {
  const button = document.createElement("button");
  const picture = document.createElement("canvas");
  picture.width = picture.height = 128;
  paint(picture, lines);
  button.title = button.ariaLabel = name;
  button.append(picture);
  button.addEventListener("click", () => replace(lines));
  element.querySelector(".examples").append(button);
}
show();
window.addEventListener("hashchange", openLink);
openLink();
