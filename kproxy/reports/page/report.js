"use strict";
(function () {
  const root = document.documentElement;
  const choice = document.getElementById("theme");
  const remembered = {
    get() { try { return localStorage.getItem("kproxy-theme") || ""; } catch { return ""; } },
    set(value) { try { localStorage.setItem("kproxy-theme", value); } catch { /* not kept, then */ } },
  };
  function theme(value) {
    if (value) root.dataset.theme = value; else delete root.dataset.theme;
  }
  choice.value = remembered.get();
  theme(choice.value);
  choice.addEventListener("change", () => { theme(choice.value); remembered.set(choice.value); });

  async function unpack(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  const places = Array.from(document.querySelectorAll("[data-chart]"));
  const PAPER = { half: 310, whole: 660 }; // CSS pixels, on A4 and on Letter
  const touch = matchMedia("(pointer: coarse)").matches;
  let figures = [];
  function draw(place) {
    if (place.dataset.drawn) return;
    place.dataset.drawn = "yes";
    const { data, layout } = figures[Number(place.dataset.chart)];
    // A finger that scrolls must not zoom.
    if (touch) layout.dragmode = false;
    if (place.clientWidth < 460) layout.font.size = 11;
    window.Plotly.newPlot(place, data, layout, {
      displaylogo: false,
      responsive: true,
      // Named one by one: the usual set has a button that sends the chart away.
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    });
  }

  // A name in the key shows and hides what it names.
  function toggled(button) {
    const place = button.closest("figure").querySelector("[data-chart]");
    if (!place.dataset.drawn) return;
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    const traces = place.data.flatMap((trace, i) => (trace.name === button.dataset.name ? [i] : []));
    window.Plotly.restyle(place, { visible: on }, traces);
  }

  async function begin() {
    if (!places.length) return;
    figures = JSON.parse(await unpack("figures"));
    const script = document.createElement("script");
    script.textContent = await unpack("library");
    document.head.append(script);
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) { draw(entry.target); seen.unobserve(entry.target); }
    }, { rootMargin: "600px" });
    places.forEach((place) => seen.observe(place));
    addEventListener("beforeprint", () => {
      for (const fold of document.querySelectorAll("details.fold:has(figure)")) fold.open = true;
      places.forEach(draw);
      // The page is not laid out for paper yet: a chart gets the width that it will have there.
      for (const place of places) window.Plotly.relayout(place, { width: place.closest(".side") ? PAPER.half : PAPER.whole });
    });
    addEventListener("afterprint", () => {
      for (const place of places) window.Plotly.relayout(place, { width: null, autosize: true });
    });
    for (const button of document.querySelectorAll(".key button")) button.addEventListener("click", () => toggled(button));
    root.dataset.ready = "yes";
  }
  begin().catch((error) => {
    console.error(error);
    for (const place of places) {
      place.style.minHeight = "0";
      place.textContent = "This browser cannot draw the chart: see its table.";
    }
  });
})();
