// Keeps the focus on the page: when the element that has it disappears or is disabled, a neighbour gets it.

const FOCUSABLE = "a[href], button:not(:disabled), input:not(:disabled), select:not(:disabled), [tabindex]";

/** The element that had the focus last, and its ancestors at that time, the nearest first. */
let last: Element[] = [];
let isMoving = false;

/** Whether the focus moves because its element has gone, and not because the user moves it. */
export function isFocusMoving(): boolean {
  return isMoving;
}

function onFocus({ target }: FocusEvent): void {
  last = [];
  for (let at = target instanceof Element ? target : null; at !== null; at = at.parentElement) last.push(at);
}

function keep(): void {
  const [element] = last;
  if (document.activeElement !== document.body || element === undefined) return;
  if (element.isConnected && !element.matches(":disabled")) return;
  focusNear(last.slice(1).find((ancestor) => ancestor.isConnected) ?? document.body, element);
}

function focusNear(ancestor: Element, lost: Element): void {
  const candidates = [...ancestor.querySelectorAll<HTMLElement>(FOCUSABLE)].filter(({ tabIndex }) => tabIndex >= 0);
  // What the whole view begins with is no neighbour.
  const isClose = ancestor.closest("main, dialog") !== null && !ancestor.matches("main, .view, .split");
  const near = lost.matches(".row-open") ? candidates.find((candidate) => candidate.matches(".row-open")) : isClose ? candidates[0] : undefined;
  isMoving = true;
  (near ?? document.querySelector("main"))?.focus({ preventScroll: true });
  isMoving = false;
}

export function keepFocus(): void {
  document.addEventListener("focusin", onFocus);
  new MutationObserver(keep).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["disabled"] });
}
