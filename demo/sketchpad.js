// The sketchpad: strokes are lists [x, y, x, y, ...] in percent of its side. They are sent as they are, while the
// pen is still down, and drawn again on the other end. Gradio gives element, props and trigger.
const canvas = element.querySelector("canvas");
const PAUSE = 250; // milliseconds between two sendings of one stroke
let strokes = [];
let pen = null; // the stroke being drawn
let sent = 0;

function paint(target, lines) {
  const context = target.getContext("2d");
  const unit = target.width / 100;
  context.clearRect(0, 0, target.width, target.height);
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
  paint(canvas, strokes);
  canvas.parentElement.classList.toggle("empty", strokes.length === 0);
}

function send() {
  sent = Date.now();
  props.value = strokes.map((line) => [...line]);
  trigger("input");
}

function draw(event) {
  const paper = canvas.getBoundingClientRect();
  const percent = (value, start, size) => Math.round((1000 * (value - start)) / size) / 10;
  pen.push(percent(event.clientX, paper.left, paper.width), percent(event.clientY, paper.top, paper.height));
  show();
}

function replace(lines) {
  strokes = lines;
  show();
  send();
}

canvas.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  strokes.push((pen = []));
  draw(event);
});
canvas.addEventListener("pointermove", (event) => {
  if (!pen || !event.isPrimary) return;
  draw(event);
  if (Date.now() - sent > PAUSE) send();
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => {
    if (!pen || !event.isPrimary) return;
    pen = null;
    send();
  });
}
element.querySelector(".undo").addEventListener("click", () => replace(strokes.slice(0, -1)));
element.querySelector(".clear").addEventListener("click", () => replace([]));

for (const [name, lines] of Object.entries(props.examples)) {
  const button = document.createElement("button");
  const picture = document.createElement("canvas");
  picture.width = picture.height = 128;
  paint(picture, lines);
  button.title = button.ariaLabel = name;
  button.append(picture);
  button.addEventListener("click", () => replace(lines.map((line) => [...line])));
  element.querySelector(".examples").append(button);
}
show();
