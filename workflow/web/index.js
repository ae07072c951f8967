/* The first page's own: what is loaded when it comes into view, and rows of runs that the filters hide. */
"use strict";

globalThis.whenSeen = (selector, open) => {
  const told = (element, error) => {
    element.textContent = error.message;
  };
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
        observer.unobserve(target);
        open(target).catch((error) => told(target, error));
      }
    },
    { rootMargin: "600px" },
  );
  for (const element of document.querySelectorAll(selector)) observer.observe(element);
};

filters.subscribe(() => {
  for (const row of document.querySelectorAll("tr[data-method]")) {
    row.hidden = !(filters.passes("method", row.dataset.method) && filters.passes("seed", row.dataset.seed));
  }
});
