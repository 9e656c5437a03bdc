// @ts-check
// The page starts here: tabs, keyboard, and the first look at the address.

function start() {
  startGallery(byId("view-gallery"));
  startExplorer(byId("view-explorer"));
  startDataset(byId("view-dataset"));
  startCompare(byId("view-compare"));
  startTabs();
  window.addEventListener("hashchange", readLink);
  document.addEventListener("keydown", shortcut);
  byId("text-close").addEventListener("click", () => /** @type {HTMLDialogElement} */ (byId("text-dialog")).close());
  readLink();
}

function startTabs() {
  const names = VIEWS.filter((view) => view !== "compare" || DATA.against !== null);
  const tabs = names.map(tabOf);
  for (const tab of tabs) {
    const view = tab.dataset.view || "";
    tab.addEventListener("click", () => update({ view }));
    tab.addEventListener("keydown", (event) => tabKey(event, tabs));
  }
  tabOf("compare").hidden = DATA.against === null;
  LISTENERS.push(() => {
    for (const view of VIEWS) {
      const chosen = view === STATE.view;
      byId(`view-${view}`).hidden = !chosen;
      tabOf(view).setAttribute("aria-selected", String(chosen));
      tabOf(view).tabIndex = chosen ? 0 : -1;
    }
  });
}

/** @param {string} view */
function tabOf(view) {
  return byId(`tab-${view}`);
}

/**
 * @param {KeyboardEvent} event
 * @param {HTMLElement[]} tabs
 */
function tabKey(event, tabs) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by === undefined) return;
  const next = tabs[(tabs.indexOf(/** @type {HTMLElement} */ (event.target)) + by + tabs.length) % tabs.length];
  next.click();
  next.focus();
}

/**
 * `[` and `]` step through the pictures of the explorer, `r` picks a random head.
 * @param {KeyboardEvent} event
 */
function shortcut(event) {
  const typing = event.target instanceof HTMLElement && ["INPUT", "TEXTAREA", "SELECT"].includes(event.target.tagName);
  if (STATE.view !== "explorer" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "[") step(-1);
  if (event.key === "]") step(1);
  if (event.key === "r") randomHead();
}

start();
