// The page itself: asks the API, draws, and asks again while a run goes on.

const EVERY_MS = 4000, STORIES = 6, GOING_ON_S = 120;
const SUITES = [["storytelling", "Story score"], ["blimp", "Minimal pairs"], ["blimp_supplement", "Supplement"],
  ["entity_tracking", "Entity tracking"], ["ewok", "EWoK"], ["comps", "COMPS"], ["wug_adj", "Wug adjectives"],
  ["wug_past", "Wug past tense"], ["reading", "Reading"], ["aoa", "AoA words"], ["glue", "GLUE"]];
const UNITS = { accuracy: " %", percent: " %", correlation: " rho", nats: " nats" };
const state = { run: null, updated: null, asked: 0, late: null, early: null, offsets: { early: 0, late: 0 } };

async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail || `${path} answered ${answer.status}`);
  return body;
}

function runPath(run, rest = "") {
  return `/api/runs/${encodeURIComponent(run)}${rest}`;
}

function runInAddress() {
  try { return decodeURIComponent(location.hash.slice(1)); } catch { return ""; }
}

async function refresh() {
  const turn = ++state.asked;
  try {
    const [{ runs }, info, { evaluations }] = await Promise.all([ask("/api/runs"), ask("/info"), ask("/evaluations?limit=50")]);
    if (turn !== state.asked) return; // a newer question is on its way
    showWork(info, evaluations);
    showRuns(runs);
    byId("empty").hidden = runs.length > 0;
    const wanted = runs.find((r) => r.run === runInAddress()) || runs[0];
    if (wanted && (wanted.run !== state.run || wanted.updated_at !== state.updated)) await showRun(wanted, turn);
    else if (wanted) showAge(wanted);
    byId("run").hidden = !wanted;
    byId("problem").hidden = true;
  } catch (error) {
    setText("problem", `The evaluator does not answer: ${error.message}. This page keeps trying.`);
    byId("problem").hidden = false;
  }
}

function showWork(info, jobs) {
  const queue = info.queue, running = jobs.find((j) => j.state === "running");
  const waiting = jobs.filter((j) => j.state === "waiting").length, more = waiting ? `; ${waiting} more asked for` : "";
  if (running) {
    const { suite, done, total } = running.progress ?? { suite: "starting", done: 0, total: 0 };
    setText("work", `Measuring ${running.order.checkpoint}, as was asked for: ${suite} ${done} of ${total}${more}.`);
    return;
  }
  if (!queue) setText("work", "Reading runs; no queue is served.");
  else if (!queue.alive) setText("work", "The queue worker has stopped.");
  else if (!queue.working_on) setText("work", `Waiting for checkpoints; ${queue.finished} measured since this evaluator started.`);
  else setText("work", `Measuring ${queue.working_on}: ${queue.suite} ${queue.done} of ${queue.total}.`);
}

function showRuns(runs) {
  const list = byId("runs"), current = runInAddress() || (runs[0] && runs[0].run);
  const key = JSON.stringify([runs.map((r) => [r.run, r.preset, r.checkpoints]), current]);
  if (list.dataset.key === key) return; // the focus stays where it is
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.run : null;
  list.dataset.key = key;
  list.replaceChildren(...runs.map((r) => el("li", {}, el("button", {
    type: "button", "data-run": r.run, "aria-current": String(r.run === current),
    onclick: () => { location.hash = encodeURIComponent(r.run); },
  }, r.run, el("small", {}, `${r.preset ? `${r.preset}, ` : ""}${r.checkpoints} checkpoints`)))));
  if (focused) [...list.querySelectorAll("button")].find((b) => b.dataset.run === focused)?.focus();
}

async function showRun(summary, turn) {
  const [detail, metrics] = await Promise.all([ask(runPath(summary.run)), ask(runPath(summary.run, "/metrics?points=400"))]);
  if (turn !== state.asked) return;
  if (state.run !== summary.run) Object.assign(state, { late: null, early: null, offsets: { early: 0, late: 0 } });
  Object.assign(state, { run: summary.run, updated: summary.updated_at });
  document.title = `Fabula: ${summary.run}`;
  setText("title", summary.run);
  state.detail = detail;
  showAge(summary);
  byId("unreadable").hidden = detail.unreadable.length === 0;
  byId("unreadable").replaceChildren(...detail.unreadable.map((text) => el("li", {}, text)));
  showAlarms(metrics);
  showCurves(metrics);
  showCheckpoints(detail);
  await Promise.all([showStories("early"), showStories("late")]);
}

function showAge(summary) {
  const config = state.detail.config, age = Date.now() / 1000 - summary.updated_at;
  const parts = [config.preset && `preset ${config.preset}`, config.seed !== undefined && `seed ${config.seed}`,
    `last change ${ago(age)}${age < GOING_ON_S && !done(state.detail) ? ", going on" : ""}`,
    config.interact?.prompt && `prompt “${config.interact.prompt}”`];
  setText("about", parts.filter(Boolean).join(" · "));
}

// A run ends with the checkpoint that has spent its word budget.
function done(detail) {
  const budget = detail.config.interact?.word_budget;
  return budget !== undefined && detail.checkpoints.some((c) => c.complete && c.interaction_words === budget);
}

// The latest first; its button shows the stories of that update.
function showAlarms(metrics) {
  byId("alarms").hidden = metrics.alarms.length === 0 && !metrics.paused;
  byId("paused").hidden = !metrics.paused;
  const list = byId("alarm-list"), key = JSON.stringify([state.run, metrics.alarms]);
  if (list.dataset.key === key) return; // the focus stays where it is
  list.dataset.key = key;
  list.replaceChildren(...metrics.alarms.toReversed().map((a) => el("li", {},
    el("button", { type: "button", onclick: () => { goTo("late", a.step); byId("late").scrollIntoView(); } }, `update ${a.step}`),
    el("span", {}, el("strong", {}, a.guard), `: ${a.message}`, a.action === "note" ? null : el("small", {}, ` (${a.action})`)))));
}

function showCurves(metrics) {
  const steps = metrics.interact, of = (read) => steps.map((m) => [m.step, read(m)]).filter(([, y]) => y !== undefined);
  const criteria = [...new Set(steps.flatMap((m) => Object.keys(m.criteria_mean)))];
  const pretrain = metrics.pretrain.map((m) => [m.words_seen, m.loss]);
  const charts = [
    lineChart("Story score", "points, mean of a batch", "update", [{ name: "score", points: of((m) => m.score_mean) }],
      metrics.alarms.map((a) => a.step)),
    lineChart("Criteria", "points", "update", criteria.map((c) => ({ name: c, points: of((m) => m.criteria_mean[c]) }))),
    lineChart("Reward", "0 to 1, length bonus included", "update", [{ name: "reward", points: of((m) => m.reward_mean) }]),
    lineChart("KL from the pretrained student", "nats a story", "update", [{ name: "KL", points: of((m) => m.kl_mean) }]),
    lineChart("Held-out teacher", "0 to 1, the same stories", "update", [
      { name: "teacher", points: of((m) => m.watch?.held_out?.training_mean ?? undefined) },
      { name: "held-out teacher", points: of((m) => m.watch?.held_out?.held_out_mean ?? undefined) }]),
    lineChart("Variety", "shares", "update", [{ name: "distinct bigrams of a batch", points: of((m) => m.watch?.distinct_bigrams) },
      { name: "repeated trigrams of a story", points: of((m) => m.watch?.repetition) }]),
    lineChart("Words", "cumulative", "update", [{ name: "spent", points: of((m) => m.words_spent) },
      { name: "written by the student", points: of((m) => m.words_student) }]),
    lineChart("Pretraining loss", "nats a token", "words seen", [{ name: "loss", points: pretrain }]),
  ].filter(Boolean);
  byId("curves").replaceChildren(...(charts.length ? charts : [el("p", { class: "quiet" }, "No metrics yet.")]));
}

function showCheckpoints(detail) {
  const reports = new Map(detail.reports.map((r) => [r.checkpoint, r]));
  const names = [...new Set([...detail.checkpoints.map((c) => c.checkpoint), ...reports.keys()])];
  const measured = new Set(detail.reports.flatMap((r) => r.suites.filter((s) => s.status !== "skipped").map((s) => s.suite)));
  const suites = SUITES.filter(([suite], place) => place < 2 || measured.has(suite));
  byId("suites").replaceChildren(el("tr", {}, el("th", { scope: "col" }, "Checkpoint"),
    ...suites.map(([, title]) => el("th", { scope: "col" }, title))));
  byId("checkpoints").replaceChildren(...names.map((name) => {
    const complete = detail.checkpoints.find((c) => c.checkpoint === name)?.complete ?? true;
    const cells = suites.map(([suite]) => suiteCell(reports.get(name)?.suites.find((s) => s.suite === suite)));
    return el("tr", {}, el("th", { scope: "row" }, name, complete ? null : el("small", {}, " being written")), ...cells);
  }));
}

function suiteCell(result) {
  if (!result) return el("td", { class: "skipped" }, "not measured");
  if (result.status !== "ok") {
    return el("td", { class: result.status, title: result.reason }, result.status === "failed" ? `failed: ${result.reason}` : "skipped");
  }
  const m = result.measures[result.headline], share = result.unit === "accuracy", unit = UNITS[result.unit] ?? "";
  const show = (value) => (share ? `${(100 * value).toFixed(1)}` : value.toFixed(2));
  const source = result.source === "generated" ? "generated items" : null;
  return el("td", { title: `${m.n} items from ${result.source}` }, `${show(m.value)}${unit}`,
    el("small", {}, `${show(m.low)} to ${show(m.high)}`), source ? el("small", {}, source) : null,
    result.reason ? el("small", { class: "note" }, result.reason) : null);
}
