// Stories of two updates side by side: the first ones, and the latest until another is chosen.

async function showStories(side) {
  const run = state.run, chosen = state[side];
  const query = new URLSearchParams({ limit: STORIES, offset: state.offsets[side] });
  if (chosen !== null) query.set("step", chosen);
  let page;
  try {
    page = await ask(runPath(run, `/stories?${query}`));
    if (side === "early" && chosen === null && page.steps.length && page.step !== page.steps[0]) {
      query.set("step", page.steps[0]);
      page = await ask(runPath(run, `/stories?${query}`));
    }
  } catch (error) {
    byId(side).replaceChildren(el("p", { class: "warning" }, error.message));
    return;
  }
  if (run !== state.run || chosen !== state[side]) return;
  const key = JSON.stringify([run, page]);
  if (byId(side).dataset.key === key) return; // nothing new: the reader's place stays
  byId(side).dataset.key = key;
  const focused = byId(side).contains(document.activeElement) ? document.activeElement.dataset.part : null;
  byId(side).replaceChildren(storyBar(side, page), ...page.stories.map(storyCard));
  if (focused) byId(side).querySelector(`[data-part="${focused}"]`)?.focus();
}

function storyBar(side, page) {
  if (page.step === null) return el("p", { class: "quiet" }, "No stories yet.");
  const id = `${side}-step`, select = el("select", { id, "data-part": "step", onchange: (event) => goTo(side, Number(event.target.value)) },
    ...page.steps.map((s) => el("option", { value: s, selected: s === page.step }, String(s))));
  const at = page.steps.indexOf(page.step), more = page.offset + STORIES < page.total;
  const move = (part, text, label, usable, act) =>
    el("button", { type: "button", "data-part": part, "aria-label": label, disabled: !usable, onclick: act }, text);
  return el("div", { class: "bar" },
    el("label", { for: id }, side === "early" ? "Before: update" : "After: update"), select,
    move("back", "‹", "Update before", at > 0, () => goTo(side, page.steps[at - 1])),
    move("on", "›", "Next update", at < page.steps.length - 1, () => goTo(side, page.steps[at + 1])),
    el("span", { class: "quiet" }, `stories ${page.offset + 1} to ${page.offset + page.stories.length} of ${page.total}`),
    move("fewer", "Earlier", "Earlier stories of this update", page.offset > 0, () => goTo(side, page.step, page.offset - STORIES)),
    move("more", "More", "More stories of this update", more, () => goTo(side, page.step, page.offset + STORIES)));
}

function goTo(side, step, offset = 0) {
  state[side] = step;
  state.offsets[side] = Math.max(0, offset);
  showStories(side);
}

function storyCard(story) {
  const facts = story.total === null
    ? [el("li", { class: "flag" }, `no verdict (${story.status}): ${story.reason || "no reason given"}`)]
    : [el("li", { class: "total" }, `${short(story.total)} points`),
      ...Object.entries(story.criteria).map(([name, value]) => el("li", {}, `${name} ${short(value)}`)),
      story.reward === null ? null : el("li", {}, `reward ${short(story.reward)}`)];
  return el("article", {},
    el("p", { class: "text" }, el("span", { class: "prompt" }, story.prompt ? `${story.prompt} ` : ""), story.text || "(nothing)"),
    el("ul", { class: "verdict" }, ...facts, el("li", {}, `${story.words} words${story.ended ? "" : ", cut off"}`),
      ...story.flags.map((flag) => el("li", { class: "flag" }, flag))));
}

window.addEventListener("hashchange", refresh);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
setInterval(() => { if (!document.hidden) refresh(); }, EVERY_MS);
refresh();
