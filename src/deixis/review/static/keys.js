// The keys of the page, in the order in which they are listed.
import { element } from "/static/api.js";

export const KEYS = [
  { keys: ["j", "k"], values: [[1], [-1]], command: "step", text: "next or previous object; arrow keys too" },
  { keys: ["a"], command: "accept", text: "accept it" },
  { keys: ["x"], command: "reject", text: "reject it: there is no such object" },
  { keys: ["Delete", "Backspace", "d"], command: "delete", text: "delete it" },
  { keys: ["o"], command: "reopen", text: "judge it again later" },
  { keys: ["1", "2", "3", "4", "5", "6", "7", "8", "9"], values: [[0], [1], [2], [3], [4], [5], [6], [7], [8]], command: "class", text: "it is of this class" },
  { keys: ["r"], command: "write", text: "write its class" },
  { keys: ["e"], command: "move", text: "move it: arrow keys, Enter" },
  { keys: ["b"], command: "draw", text: "draw a box: mouse, or arrow keys and Enter" },
  { keys: ["m"], command: "click", text: "make a mask by a click" },
  { keys: ["Enter"], command: "place", text: "save the box that is drawn or moved" },
  { keys: ["f"], command: "finish", text: "finish the image: what is open is accepted" },
  { keys: ["n", "p"], values: [[1], [-1]], command: "image", text: "next or previous image" },
  { keys: ["+", "=", "-"], values: [[1.25], [1.25], [0.8]], command: "zoom", text: "zoom" },
  { keys: ["g"], command: "grid", text: "grid of crops, or one picture" },
  { keys: ["u"], command: "undo", text: "undo your latest action" },
  { keys: ["?"], command: "keys", text: "show these keys" },
];

export function listed(place) {
  for (const one of KEYS) {
    const line = element("div");
    for (const key of one.keys) line.append(element("kbd", key), " ");
    line.append(one.text);
    place.append(line);
  }
}
