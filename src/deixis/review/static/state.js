// What the page knows, and the order in which things are done.
import { byId, get, say } from "/static/api.js";
import * as grid from "/static/grid.js";

export const state = { review: null, queue: [], place: -1, image: null, chosen: null, mode: "look", grid: false, latest: 0 };

export const annotator = () => byId("annotator").value.trim();

export const filters = () => ({
  status: byId("status").value, label: byId("label").value, sampled: byId("sampled").checked,
  min: byId("min-score").value || 0, max: byId("max-score").value || 1,
});

export const object = () => state.image?.objects.find((one) => one.id === state.chosen);
export const current = () => (state.grid ? grid.chosenCrop() : object());
export const written = () => byId("name").value.trim() || state.review.names[0];

// One thing after another: a key that is pressed while an answer is awaited means what is there then.
let busy = Promise.resolve();
export function inTurn(work, conflict) {
  busy = busy.then(work).catch(async (error) => {
    say(error.message, true);
    if (error.conflict) await conflict().catch(() => undefined);
  });
  return busy;
}

export async function counted() {
  state.review = await get("review");
  const { done, images, open, names } = state.review;
  byId("progress").textContent = `${done} of ${images} images reviewed, ${open} objects to judge`;
  if (byId("names").children.length === names.length) return;
  const chosen = byId("label").value;
  byId("label").replaceChildren(new Option("any", ""), ...names.map((name) => new Option(name, name)));
  byId("label").value = chosen;
  byId("names").replaceChildren(...names.map((name) => new Option(name, name)));
  byId("hotkeys").replaceChildren(...names.slice(0, 9).map((name) => {
    const item = document.createElement("li");
    item.textContent = name;
    return item;
  }));
}
