// The page: asks the server what is next, shows it, and sends what was chosen. It keeps nothing that the server does not have.

import { KEYS, WORDS } from "./words.js";

const QUESTIONS = ["text", "motion", "visual"];
const $ = (id) => document.getElementById(id);
const make = (kind, more = {}, ...inside) => {
  const made = Object.assign(document.createElement(kind), more);
  made.append(...inside);
  return made;
};

let language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
let task = null; // as the server tells it
let answers = {}; // as they stand on the page
let current = "text"; // the question that keys answer
let since = 0; // when all its clips were there to be seen
let begun = false; // whether this visit has been welcomed
let busy = false; // whether answers are on their way

class Refused extends Error {}

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, options);
  const told = await response.json();
  if (!response.ok) throw new Refused(told.error?.code ?? "", { cause: told.error?.message });
  return told;
}

// --- What is seen ---

function say() {
  const words = WORDS[language], of = words[task?.mode ?? "absolute"];
  document.documentElement.lang = language;
  document.title = words.title;
  for (const place of document.querySelectorAll("[data-say]")) place.textContent = words[place.dataset.say];
  $("language").textContent = words.other;
  $("link").textContent = words.link;
  $("how").textContent = of.how;
  $("meanings").replaceChildren(...QUESTIONS.map((name) => make("li", {}, make("b", { textContent: of[name][0] }), make("span", { textContent: of[name][1] }))));
  $("keys").replaceChildren(...of.keys.flatMap(([key, does]) => [make("kbd", { textContent: key }), ` ${does}  `]));
  $("questions").replaceChildren(...QUESTIONS.map((name) => question(name, of)));
  mark();
}

function question(name, of) {
  const buttons = Object.entries(of.answers).map(([answer, word]) => {
    const button = make("button", { type: "button", textContent: word });
    button.dataset.answer = answer;
    button.onclick = () => choose(name, answer);
    return button;
  });
  const legend = make("legend", { textContent: of[name][0] });
  legend.append(make("small", { textContent: of[name][1] }));
  const field = make("fieldset", {}, legend, make("div", { className: "answers" }, ...buttons));
  field.dataset.question = name;
  return field;
}

function mark() {
  for (const field of $("questions").children) {
    const name = field.dataset.question;
    field.classList.toggle("now", name === current);
    for (const button of field.querySelectorAll("button")) button.setAttribute("aria-pressed", answers[name] === button.dataset.answer);
  }
  $("next").disabled = busy || !QUESTIONS.every((name) => answers[name]);
  $("back").disabled = busy || !task || task.number <= 1;
}

function only(id) {
  for (const view of document.querySelectorAll("main")) view.hidden = view.id !== id;
}

function show(told) {
  const same = task?.number === told.number && $("clips").childElementCount > 0;
  task = told;
  $("link").href = told.link ?? "";
  $("elsewhere").hidden = !told.link || !!told.clips; // while clips are judged nothing else is to be read
  $("count").textContent = begun ? `${Math.min(told.number, told.total)} / ${told.total}` : "";
  $("progress").value = begun ? (told.next - 1) / told.total : 0;
  answers = { ...told.answers };
  current = QUESTIONS.find((name) => !answers[name]) ?? "text";
  say();
  if (!begun) return only("welcome");
  if (!told.clips) return $("clips").replaceChildren(), only("finished");
  only("task");
  $("task").classList.toggle("pair", told.clips.length > 1);
  $("prompt").textContent = told.prompt;
  if (!same) play(told.clips);
}

function play(names) {
  since = 0;
  const videos = names.map((name) => {
    // Without autoplay telephones load nothing; muted and in the page they may.
    const video = make("video", { muted: true, loop: true, playsInline: true, autoplay: true, preload: "auto", tabIndex: 0, src: `media/${name}.mp4` });
    video.onclick = pause;
    video.onerror = () => trouble(WORDS[language].lost);
    return video;
  });
  const labels = names.length > 1 ? ["A", "B"] : [];
  $("clips").replaceChildren(...videos.map((video, i) => make("figure", {}, video, ...labels.slice(i, i + 1).map((label) => make("figcaption", { textContent: label })))));
  const there = videos.map((video) => new Promise((seen) => video.addEventListener("canplay", seen, { once: true })));
  Promise.all(there).then(() => {
    if (!videos[0].isConnected) return; // somebody has gone on meanwhile
    $("clips").classList.toggle("wide", videos[0].videoWidth > videos[0].videoHeight);
    since = performance.now();
    for (const video of videos) {
      video.currentTime = 0; // together
      video.play().catch(() => {}); // where the browser forbids it, a tap plays
    }
  });
}

function pause() {
  const videos = [...$("clips").querySelectorAll("video")], still = videos.some((video) => video.paused);
  for (const video of videos) still ? video.play().catch(() => {}) : video.pause();
}

// --- What is done ---

function choose(name, answer) {
  answers[name] = answer;
  current = QUESTIONS.find((other) => !answers[other]) ?? name;
  mark();
}

async function guarded(work) {
  if (busy) return;
  busy = true;
  $("trouble").hidden = true;
  mark();
  try {
    const told = await work();
    busy = false;
    show(told);
    scrollTo(0, 0);
  } catch (error) {
    busy = false;
    mark();
    if (error instanceof Refused && error.message === "not_invited") return refuse();
    trouble((error instanceof Refused && error.cause) || WORDS[language].lost);
  }
}

function trouble(what) {
  $("trouble").textContent = what;
  $("trouble").hidden = false;
}

function refuse() {
  say();
  only("refused");
}

const next = () => guarded(() => {
  const took = since ? Math.round(performance.now() - since) : 0;
  return ask(`api/task/${task.number}`, { answers, latency_ms: Math.min(took, 86400000) });
});
const back = () => guarded(() => ask(`api/task/${task.number - 1}`));

const begin = () => guarded(async () => {
  const told = await ask("api/join", { invitation: new URLSearchParams(location.search).get("invitation") ?? "" });
  begun = true;
  return told;
});

$("begin").onclick = begin;
$("next").onclick = next;
$("back").onclick = back;
$("again").onclick = back;
$("questions").onsubmit = (event) => event.preventDefault();
$("language").onclick = () => { language = language === "en" ? "zh" : "en"; say(); };
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !task) return;
  if (!$("welcome").hidden) return event.key === "Enter" && event.target.tagName !== "BUTTON" && $("begin").click();
  if (event.key === "Backspace" && task.number > 1) return event.preventDefault(), back();
  if ($("task").hidden) return;
  const answer = KEYS[task.mode][event.key] ?? KEYS[task.mode][event.key.toLowerCase()];
  if (answer) return event.preventDefault(), choose(current, answer);
  const pressed = event.target.closest("button"); // which both of these keys press
  if (event.key === "Enter" && !$("next").disabled && (!pressed || pressed.dataset.answer)) return event.preventDefault(), next();
  if (pressed) return;
  if (event.key === " ") event.preventDefault(), pause();
});

guarded(async () => {
  const told = await ask("api/task");
  begun = told.next > 1; // who comes back goes on
  return told;
});
