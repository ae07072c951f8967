/* Draws the figures, panel by panel, when they come into view, and again when the filters change.

   A trace's `meta` says of which run it is, a point's `customdata` where it was measured; what says nothing stays.
*/
"use strict";

(() => {
  const drawn = new Map();
  const gap = { connectgaps: true };

  const ofRun = ({ meta }) =>
    !meta || meta.method === "base" || (filters.passes("method", meta.method) && filters.passes("seed", meta.seed));

  const ofPoint = (where) =>
    !where || (filters.passes("dataset", where[0]) && filters.passes("split", where[1]) && ofFraction(where[2]));

  // Runs start at the base, whatever milestones are chosen.
  const ofFraction = (fraction) => fraction === 0 || filters.passes("milestone", fraction);

  function shownTrace(trace) {
    if (!ofRun(trace)) return { ...trace, visible: false };
    if (!Array.isArray(trace.customdata)) return trace;
    return { ...trace, ...gap, y: trace.y.map((value, place) => (ofPoint(trace.customdata[place]) ? value : null)) };
  }

  function shownLayout(layout, template) {
    const annotations = (layout.annotations ?? []).filter((each) => !each.name || filters.passes("method", each.name));
    const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
    return { ...layout, template, annotations, dragmode, autosize: true, width: undefined };
  }

  function place(panel) {
    const element = document.createElement("div");
    element.className = "panel";
    element.style.setProperty("--share", `${100 * panel.share}%`);
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", panel.title);
    return element;
  }

  function draw({ elements, figure }) {
    figure.panels.forEach((panel, i) => {
      const layout = shownLayout(panel.layout, figure.template);
      Plotly.react(elements[i], panel.data.map(shownTrace), layout, { displaylogo: false, responsive: true });
    });
  }

  async function open(container) {
    const name = container.dataset.figure;
    const [figure] = await Promise.all([loaded(`index/figure_${name}`), loadedScript("assets/index/plotly.min.js")]);
    const elements = figure.panels.map(place);
    container.replaceChildren(...elements);
    drawn.set(name, { elements, figure });
    draw(drawn.get(name));
  }

  globalThis.whenSeen("[data-figure]", open);
  filters.subscribe(() => drawn.forEach(draw));
})();
