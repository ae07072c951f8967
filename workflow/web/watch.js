// The live view: asks every two seconds how the study is, and shows what has changed. All text goes in as text.
"use strict";

const EVERY = 2000; // ms
const FEW = 4; // rules named at most, of those that have not been seen
const DASHES = { solid: "", dash: "7 4", dot: "2 3", dashdot: "7 3 2 3", longdash: "11 4" };
const FONT = "Helvetica, Arial, Liberation Sans, sans-serif";
const at = (id) => document.getElementById(id);
const shown = new Map();

/** A new element with attributes and, as text or elements, what it holds. */
function make(name, attributes = {}, ...inside) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...inside);
  return element;
}

/** Calls `draw` where `data` is not what was drawn at `id` before. */
function whenChanged(id, data, draw) {
  const text = JSON.stringify(data);
  if (shown.get(id) === text) return;
  shown.set(id, text);
  draw(at(id));
}

/** A table of the columns that hold something; those that begin with # hold numbers. */
function table(columns, rows) {
  const used = columns.map((_, i) => i).filter((i) => rows.some((row) => row[i] !== ""));
  const kind = (i) => (columns[i].startsWith("#") ? { class: "number" } : {});
  const head = used.map((i) => make("th", { scope: "col", ...kind(i) }, columns[i].replace("#", "")));
  const body = rows.map((row) => make("tr", {}, ...used.map((i) => make("td", kind(i), row[i]))));
  return make("table", { class: "plain" }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
}

function duration(seconds) {
  const minutes = Math.round(seconds / 60);
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (minutes < 100) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.round((minutes % 1440) / 60)} h`;
}

function clock(seconds, now) {
  const then = new Date(seconds * 1000);
  const time = then.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  const today = new Date(now * 1000).toDateString() === then.toDateString();
  return today ? time : `${then.toLocaleDateString("en-GB", { day: "numeric", month: "short" })}, ${time}`;
}

/** A number in four significant digits. */
function written(value) {
  if (value === null || value === undefined) return "–";
  return value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(4)));
}

const times = (count) => (count === 1 ? "once" : `${count} times`);

function said(study) {
  if (study.state === "waiting") return "Nothing has run yet: this page fills once Snakemake is at work.";
  const began = clock(study.began, study.now);
  const heard = clock(study.heard, study.now);
  const ends = {
    running: `At work since ${began}.`,
    finished: `Finished at ${heard}; took ${duration(study.heard - study.began)}.`,
    failed: `Began at ${began} and ended at ${heard} with failed jobs.`,
    stopped: `Began at ${began} and was ended before it was done; last sign of life at ${heard}.`,
  };
  return ends[study.state];
}

function estimate(study) {
  if (study.eta === null) return [];
  const { seconds, parallel, unseen, least } = study.eta;
  if (seconds === null) return ["Time to go: unknown until more has finished."];
  const how = least ? "at least" : "about";
  const end = clock(study.now + seconds, study.now);
  const more = unseen.length > FEW ? ` and ${unseen.length - FEW} more` : "";
  const why = unseen.length ? ` Not one job has finished yet of ${unseen.slice(0, FEW).join(", ")}${more}.` : "";
  const soFar = `${duration(study.now - study.began)} so far, ${parallel.toPrecision(2)} jobs at a time.${why}`;
  return [`Time to go: ${how} ${duration(seconds)}, until ${end}.`, make("span", { class: "note" }, soFar)];
}

function stages(study) {
  const sum = (key) => study.stages.reduce((total, stage) => total + (stage[key] ?? 0), 0);
  const known = study.stages.every((stage) => stage.jobs !== null);
  const whole = { name: "all", done: sum("done"), jobs: known ? sum("jobs") : null, running: sum("running"), failed: sum("failed") };
  const rows = [...study.stages, whole].map((stage) => [
    stage.name,
    stage.jobs === null ? "" : make("progress", { max: stage.jobs, value: stage.done, "aria-label": stage.name }),
    stage.jobs === null ? String(stage.done) : `${stage.done} of ${stage.jobs}`,
    stage.running ? String(stage.running) : "",
    stage.failed ? make("span", { class: "bad" }, String(stage.failed)) : "",
    stage.seconds ? duration(stage.seconds) : "",
  ]);
  return table(["stage", "progress", "#jobs done", "#at work", "#failed", "#time of one"], rows);
}

function failure(job) {
  const wildcards = Object.entries(job.wildcards).map(([name, value]) => `${name}=${value}`);
  const retried = job.retried ? `, tried again ${times(job.retried)}` : "";
  const summary = make("summary", {}, make("strong", {}, job.rule), wildcards.length ? ` (${wildcards.join(", ")})` : "");
  summary.append(`: failed ${times(job.times)}${retried}; ${job.now}`);
  const lines = job.lines.length ? job.lines.join("\n") : "(its log is empty)";
  const log = make("pre", { tabindex: "0", role: "region", "aria-label": `end of the log of ${job.rule}` }, lines);
  return make("details", { class: "failure", open: "" }, summary, make("code", {}, job.log), log);
}

function key(run) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const drawn = { x1: 0, x2: 28, y1: 5, y2: 5, stroke: run.colour, "stroke-width": 3, "stroke-dasharray": DASHES[run.dash] };
  for (const [name, value] of Object.entries({ width: 28, height: 10, class: "key", "aria-hidden": "true" })) {
    svg.setAttribute(name, value);
  }
  for (const [name, value] of Object.entries(drawn)) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

const label = (run) => (run.seed ? `${run.name}, seed ${run.seed}` : run.name);

function last(run, metric) {
  const values = (run.metrics[metric] ?? [[], []])[1];
  return values.length ? written(values[values.length - 1]) : "–";
}

function state(run) {
  if (run.job === null) return `finished, ${run.steps} steps`;
  const bar = make("progress", { max: run.steps, value: run.step, "aria-label": `steps of ${label(run)}` });
  return make("span", {}, bar, ` ${run.step} of ${run.steps}${run.running ? "" : ", stopped"}`);
}

function runs(study) {
  const rows = study.runs.map((run) => [
    make("span", {}, key(run), label(run)),
    state(run),
    ...["loss", "reward", "kl"].map((metric) => last(run, metric)),
    run.running && run.pace ? duration(run.pace * (run.steps - run.step)) : "",
  ]);
  return table(["run", "steps", "#loss", "#reward", "#KL", "#to go"], rows);
}

/** Text as Plotly shows it unchanged. */
const literal = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function chart(study, metric, title) {
  const drawn = study.runs.filter((run) => metric in run.metrics);
  const axis = { gridcolor: "#ececec", linecolor: "#333", zeroline: false, automargin: true, fixedrange: true };
  const traces = drawn.map((run) => ({
    x: run.metrics[metric][0],
    y: run.metrics[metric][1],
    name: literal(label(run)),
    mode: run.metrics[metric][0].length > 1 ? "lines" : "markers",
    line: { color: run.colour, dash: run.dash, width: run.running ? 2.5 : 1.2 },
    opacity: run.running || !study.runs.some((other) => other.running) ? 1 : 0.55,
  }));
  const layout = {
    margin: { l: 48, r: 8, t: 8, b: 36 },
    font: { family: FONT, size: 12, color: "#222" },
    xaxis: { ...axis, title: { text: "step", standoff: 4 }, rangemode: "tozero" },
    yaxis: axis,
    showlegend: false,
    hovermode: "closest",
  };
  const box = at(`chart-${metric}`);
  const now = drawn.map((run) => `${label(run)} ${last(run, metric)}`).join("; ");
  box.setAttribute("aria-label", `${title} by step; last values: ${now}`);
  globalThis.Plotly.react(box, traces, layout, { displayModeBar: false, responsive: true });
}

function charts(study) {
  const wanted = Object.entries(study.metrics).filter(([metric]) => study.runs.some((run) => metric in run.metrics));
  whenChanged("charts", wanted, (box) => {
    box.replaceChildren(
      ...wanted.map(([metric, title]) =>
        make("figure", {}, make("h3", {}, title), make("div", { class: "chart", id: `chart-${metric}`, role: "img" })),
      ),
    );
    for (const [metric] of wanted) shown.delete(`chart-${metric}`);
  });
  for (const [metric, title] of wanted) {
    const lines = study.runs.map((run) => [label(run), run.running, run.metrics[metric]]);
    whenChanged(`chart-${metric}`, lines, () => chart(study, metric, title));
  }
}

function show(study) {
  document.title = `${study.study}: ${study.state}`;
  at("study").textContent = study.study;
  whenChanged("how", study.state, (badge) => {
    badge.textContent = study.state;
    badge.className = `how ${study.state}`;
  });
  at("asked").textContent = `as of ${new Date(study.now * 1000).toLocaleTimeString("en-GB")}`;
  whenChanged("said", said(study), (line) => line.replaceChildren(said(study)));
  at("eta").replaceChildren(...estimate(study));
  at("eta").hidden = study.eta === null;
  whenChanged("stages", study.stages, (box) => box.replaceChildren(...(study.stages.length ? [stages(study)] : [])));
  at("failed").hidden = !study.failures.length;
  whenChanged("failures", study.failures, (box) => {
    box.replaceChildren(...study.failures.map(failure));
    for (const log of box.querySelectorAll("pre")) log.scrollTop = log.scrollHeight; // its end says why
  });
  at("at-work").hidden = !study.jobs.length;
  const jobs = study.jobs.map((job) => [job.rule, job.where, duration(job.seconds), job.host ?? ""]);
  whenChanged("jobs", jobs, (box) => box.replaceChildren(table(["rule", "of", "#for", "on"], jobs)));
  at("trained").hidden = !study.runs.length;
  const known = study.runs.map((run) => [label(run), run.running, run.step, run.steps, run.pace]);
  whenChanged("runs", known, (box) => box.replaceChildren(runs(study)));
  charts(study);
}

async function ask() {
  try {
    const answer = await fetch("state.json");
    if (!answer.ok) throw new Error(await answer.text());
    show(await answer.json());
    at("lost").hidden = true;
  } catch (error) {
    const words = `No news: ${error.message.trim()}. Is watch still running? Asking again.`;
    whenChanged("lost", words, (line) => line.replaceChildren(words));
    at("lost").hidden = false;
  }
  setTimeout(ask, EVERY);
}

ask();
