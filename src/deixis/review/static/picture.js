// One picture: its objects drawn over it, boxes drawn and moved by mouse or keys, zoom.
import { byId } from "/static/api.js";

const SVG = "http://www.w3.org/2000/svg";
const view = { zoom: 1, image: null, chosen: null, draft: null, drag: null };

function shape(kind, values, classes) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
  made.setAttribute("class", classes);
  byId("boxes").append(made);
  return made;
}

function rect([x1, y1, x2, y2], classes) {
  return shape("rect", { x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0) }, classes);
}

export function drawn(image, chosen) {
  if (!image) return;
  if (view.image?.id !== image.id) {
    byId("picture").src = `/api/pictures/${image.id}`;
    byId("picture").alt = `Picture ${image.file}, ${image.objects.length} objects`;
    view.zoom = Math.min(1, (byId("frame").clientWidth - 4) / image.width) || 1;
    if (image.width < 400) view.zoom = Math.max(1, Math.floor(600 / image.width));
  }
  view.image = image;
  view.chosen = chosen;
  byId("picture").width = image.width * view.zoom;
  byId("picture").height = image.height * view.zoom;
  byId("boxes").setAttribute("viewBox", `0 0 ${image.width} ${image.height}`);
  byId("boxes").setAttribute("preserveAspectRatio", "none");
  byId("boxes").replaceChildren();
  for (const object of image.objects) {
    const classes = object.status + (object.id === chosen ? " chosen" : "");
    for (const points of object.outlines) shape("polygon", { points: points.map((p) => p.join(",")).join(" ") }, classes);
    rect(object.box, classes).dataset.object = object.id;
  }
  if (view.draft) {
    rect(view.draft, "draft");
    const side = 8 / view.zoom;
    rect([view.draft[2] - side / 2, view.draft[3] - side / 2, view.draft[2] + side / 2, view.draft[3] + side / 2], "handle");
  }
}

export const redrawn = () => view.image && drawn(view.image, view.chosen);

export function zoomed(factor) {
  view.zoom = Math.min(Math.max(view.zoom * factor, 0.1), 16);
  redrawn();
}

export const draft = () => view.draft;

export function drafted(box) {
  view.draft = box;
  redrawn();
}

// A box in the middle of what is visible, to be moved by the arrow keys.
export function middle() {
  const frame = byId("frame");
  const x = (frame.scrollLeft + Math.min(frame.clientWidth, view.image.width * view.zoom) / 2) / view.zoom;
  const y = (frame.scrollTop + Math.min(frame.clientHeight, view.image.height * view.zoom) / 2) / view.zoom;
  const half = Math.min(view.image.width, view.image.height) / 8;
  return [x - half, y - half, x + half, y + half];
}

// Arrow keys move the draft, with Alt its right bottom corner; Shift moves ten pixels.
export function nudged(event) {
  const step = event.shiftKey ? 10 : 1;
  const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
  if (!by || !view.draft) return false;
  const [x1, y1, x2, y2] = view.draft;
  const [width, height] = [view.image.width, view.image.height];
  if (event.altKey) {
    drafted([x1, y1, Math.min(Math.max(x2 + by[0], x1 + 1), width), Math.min(Math.max(y2 + by[1], y1 + 1), height)]);
  } else {
    const dx = Math.min(Math.max(by[0], -x1), width - x2);
    const dy = Math.min(Math.max(by[1], -y1), height - y2);
    drafted([x1 + dx, y1 + dy, x2 + dx, y2 + dy]);
  }
  return true;
}

function point(event) {
  const place = byId("picture").getBoundingClientRect();
  const x = ((event.clientX - place.left) / place.width) * view.image.width;
  const y = ((event.clientY - place.top) / place.height) * view.image.height;
  return [Math.min(Math.max(x, 0), view.image.width - 0.01), Math.min(Math.max(y, 0), view.image.height - 0.01)];
}

// actions: mode() is "look", "draw", "move" or "click"; run(command, …) is choose, place or mask
export function listens(actions) {
  const boxes = byId("boxes");
  boxes.addEventListener("pointerdown", (event) => {
    if (!view.image || event.button) return;
    const at = point(event);
    if (actions.mode() === "click") return actions.run("mask", ...at);
    if (actions.mode() === "draw") view.drag = { kind: "draw", at };
    else if (actions.mode() === "move" && view.draft) {
      const near = 12 / view.zoom;
      const corner = Math.abs(at[0] - view.draft[2]) < near && Math.abs(at[1] - view.draft[3]) < near;
      view.drag = { kind: corner ? "corner" : "whole", at, box: view.draft };
    } else if (event.target.dataset.object) return actions.run("choose", Number(event.target.dataset.object));
    if (view.drag) boxes.setPointerCapture(event.pointerId);
    return event.preventDefault();
  });
  boxes.addEventListener("pointermove", (event) => {
    if (!view.drag) return;
    const { kind, at, box } = view.drag;
    const [x, y] = point(event);
    if (kind === "draw") drafted([Math.min(x, at[0]), Math.min(y, at[1]), Math.max(x, at[0]), Math.max(y, at[1])]);
    else if (kind === "corner") drafted([box[0], box[1], Math.max(x, box[0] + 1), Math.max(y, box[1] + 1)]);
    else drafted([box[0] + x - at[0], box[1] + y - at[1], box[2] + x - at[0], box[3] + y - at[1]]);
  });
  boxes.addEventListener("pointerup", () => {
    if (!view.drag) return;
    view.drag = null;
    actions.run("place");
  });
}
