// The page: what is shown, what is done, what the keys do.
import { byId, element, get, post, say, stateText } from "/static/api.js";
import * as grid from "/static/grid.js";
import { KEYS, listed } from "/static/keys.js";
import * as picture from "/static/picture.js";
import { annotator, counted, current, filters, inTurn, object, state, written } from "/static/state.js";

async function start() {
  state.latest = (await get("changes")).latest;
  byId("annotator").value ||= localStorage.getItem("annotator") || ""; // it may be written before this runs
  await counted();
  for (const order of state.review.orders) byId("order").append(new Option(order.replace("_", " "), order));
  byId("click").hidden = !state.review.masks;
  await queued();
  if (!annotator()) byId("annotator").focus();
  setInterval(() => inTurn(followed, reload), 3000);
}

async function queued() {
  const { status, label } = filters();
  state.queue = await get("images", { order: byId("order").value || "worth", status, label });
  await counted();
  if (state.grid) return grid.loadGrid(filters());
  return opened(0);
}

async function opened(place) {
  state.place = Math.min(Math.max(place, 0), state.queue.length - 1);
  state.chosen = null;
  setMode("look");
  if (state.place < 0) {
    state.image = null;
    byId("title").textContent = "No image";
    byId("why").textContent = "";
    byId("objects").replaceChildren();
    return say("Nothing is left to review with these filters.");
  }
  const image = await get(`images/${state.queue[state.place].id}`);
  const first = image.objects.find((one) => one.status === "open") || image.objects[0];
  return shown(image, first?.id ?? null);
}

function shown(image, chosen = state.chosen) {
  state.image = image;
  const done = image.status === "done" ? `, finished by ${image.annotator}` : "";
  byId("title").textContent = `${state.place + 1} of ${state.queue.length}: ${image.file}${done}`;
  byId("why").textContent = image.why;
  byId("objects").replaceChildren(...image.objects.map(option));
  choose(image.objects.some((one) => one.id === chosen) ? chosen : null);
}

function option(one) {
  const { min, max } = filters();
  const item = element("li");
  item.id = `object-${one.id}`;
  item.hidden = (one.score ?? 0) < min || (one.score ?? 0) > max;
  item.setAttribute("role", "option");
  const { status, rest } = stateText(one);
  item.append(element("strong", one.label), " ", element("span", status, `state ${one.status}`), ` ${rest}`);
  item.addEventListener("click", () => choose(one.id));
  return item;
}

function choose(id) {
  state.chosen = id;
  for (const item of byId("objects").children) item.setAttribute("aria-selected", String(item.id === `object-${id}`));
  if (id === null) byId("objects").removeAttribute("aria-activedescendant");
  else {
    byId("objects").setAttribute("aria-activedescendant", `object-${id}`);
    byId(`object-${id}`)?.scrollIntoView({ block: "nearest" });
    byId("name").value = object().label;
  }
  picture.drawn(state.image, id);
}

function step(by) {
  if (state.grid) return grid.stepCrop(by);
  const rows = state.image?.objects.filter((one) => !byId(`object-${one.id}`).hidden) || [];
  if (!rows.length) return undefined;
  const place = rows.findIndex((one) => one.id === state.chosen);
  return choose(rows[Math.min(Math.max(place + by, 0), rows.length - 1)].id);
}

function setMode(mode) {
  state.mode = state.mode === mode ? "look" : mode;
  for (const one of ["draw", "move", "click"]) byId(one).setAttribute("aria-pressed", String(state.mode === one));
  if (state.mode === "draw") picture.drafted(picture.middle());
  else picture.drafted(state.mode === "move" && object() ? object().box : null);
  if (state.mode !== "draw" && state.mode !== "move") return;
  byId("frame").focus();
  say("Arrow keys move the box, with Alt its corner, with Shift ten pixels; Enter saves, Escape leaves it.");
}

async function acted(body, done) {
  if (!annotator()) {
    byId("annotator").focus();
    throw new Error("Write your name first: corrections are kept with who made them.");
  }
  const image = await post("actions", { annotator: annotator(), ...body });
  if (state.grid) grid.judged(image, body.object);
  else shown(image, image.added ?? state.chosen);
  await counted();
  if (!state.grid && ["accept", "reject", "delete"].includes(body.kind)) step(1);
  say(done);
}

async function decide(kind, done, more = {}) {
  const one = current();
  if (!one) return say("Choose an object first.", true);
  return acted({ kind, object: one.id, version: one.version, ...more }, `${one.label}: ${done}, saved.`);
}

function renamed(label) {
  if (current()) return decide("rename", `now ${label}`, { label });
  byId("name").value = label;
  return say(`The next object is ${label}.`);
}

async function placed() {
  const box = picture.draft();
  if (!box) return undefined;
  const moving = state.mode === "move";
  setMode("look");
  if (moving) return decide("move", "moved", { box });
  return acted({ kind: "add", image: state.image.id, label: written(), box }, `${written()}: added, saved.`);
}

async function clicked(x, y) {
  say("The segmenter looks at it …");
  const { mask } = await post(`images/${state.image.id}/mask`, { x, y });
  await acted({ kind: "add", image: state.image.id, label: written(), mask }, `${written()}: mask added, saved.`);
}

async function finished() {
  if (!state.image || state.grid) return;
  const kind = state.image.status === "done" ? "unfinish" : "finish";
  const said = kind === "finish" ? "Image finished, saved." : "Image opened again.";
  await acted({ kind, image: state.image.id, version: state.image.version }, said);
  if (kind === "finish" && state.place + 1 < state.queue.length) await opened(state.place + 1);
}

async function undone() {
  const image = await post("undo", { annotator: annotator() || "nobody" });
  await counted();
  if (state.grid) await grid.loadGrid(filters());
  else {
    const place = state.queue.findIndex((row) => row.id === image.id);
    if (place >= 0) state.place = place;
    shown(image);
  }
  say("Undone.");
}

async function reload() {
  if (state.grid) await grid.loadGrid(filters());
  else if (state.image) shown(await get(`images/${state.image.id}`));
}

// What others did meanwhile is shown without being asked for.
async function followed() {
  const { latest, changes } = await get("changes", { since: state.latest });
  state.latest = latest;
  const others = changes.filter((one) => one.annotator !== annotator());
  if (!others.length) return;
  await counted();
  if (state.mode === "look" && (state.grid || others.some((one) => one.image === state.image?.id))) {
    await reload();
    say(`${others[0].annotator} changed something here; this is how it is now.`);
  }
}

async function toGrid() {
  state.grid = !state.grid;
  byId("to-grid").setAttribute("aria-pressed", String(state.grid));
  byId("one").hidden = state.grid;
  byId("grid").hidden = !state.grid;
  grid.firstPage();
  await queued();
  if (state.grid) byId("crops").focus();
}

function toKeys() {
  const hidden = !byId("keys").hidden;
  byId("keys").hidden = hidden;
  byId("to-keys").setAttribute("aria-expanded", String(!hidden));
}

async function paged(by) {
  grid.turned(by);
  await grid.loadGrid(filters());
}

const one = () => state.image && !state.grid;
const commands = {
  accept: () => decide("accept", "accepted"), reject: () => decide("reject", "rejected"),
  delete: () => decide("delete", "deleted"), reopen: () => decide("reopen", "open again"),
  write: () => byId("name").select(), rename: () => renamed(written()), step, finish: finished, undo: undone,
  grid: toGrid, keys: toKeys, page: paged, look: () => setMode("look"), zoom: picture.zoomed, filter: queued,
  draw: () => one() && setMode("draw"), move: () => one() && object() && setMode("move"),
  click: () => one() && state.review.masks && setMode("click"), choose, place: placed, mask: clicked,
  image: (by) => (state.grid ? undefined : opened(state.place + by)),
  class: (place) => state.review.names[place] && renamed(state.review.names[place]),
  nudge: (key) => picture.draft() ? picture.nudged(key) : step(["ArrowDown", "ArrowRight"].includes(key.key) ? 1 : -1),
};
const run = (command, ...values) => inTurn(() => commands[command](...values), reload);

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  const typing = target.matches("input:not([type=checkbox]), select");
  if (key === "Escape") return typing ? byId("frame").focus() : run("look");
  if (target.id === "name" && key === "Enter") {
    byId("objects").focus();
    return run("rename");
  }
  const held = event.ctrlKey || event.metaKey || (event.altKey && !key.startsWith("Arrow"));
  if (typing || held || (target.matches("button, a") && key === "Enter")) return undefined;
  if (key.startsWith("Arrow")) {
    if (target === byId("frame") && state.mode === "look") return undefined; // it scrolls
    event.preventDefault();
    return run("nudge", { key, shiftKey: event.shiftKey, altKey: event.altKey });
  }
  const known = KEYS.find((line) => line.keys.includes(key));
  if (!known) return undefined;
  event.preventDefault();
  return run(known.command, ...(known.values?.[known.keys.indexOf(key)] ?? []));
});

const buttons = ["accept", "reject", "delete", "rename", "finish", "undo", "draw", "move", "click"].map((id) => [id, id]);
const others = [["previous", "image", -1], ["next", "image", 1], ["zoom-in", "zoom", 1.25], ["zoom-out", "zoom", 0.8],
  ["to-grid", "grid"], ["to-keys", "keys"], ["back", "page", -1], ["on", "page", 1]];
for (const [id, command, ...values] of [...buttons, ...others]) byId(id).addEventListener("click", () => run(command, ...values));
byId("annotator").addEventListener("change", () => localStorage.setItem("annotator", annotator()));
for (const id of ["order", "status", "label", "min-score", "max-score", "sampled"]) {
  byId(id).addEventListener("change", () => { grid.firstPage(); run("filter"); });
}
picture.listens({ mode: () => state.mode, run });
listed(byId("keys"));
inTurn(start, reload);
