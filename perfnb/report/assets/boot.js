"use strict";
// Unpacks plotly.js and draws every chart of the page, light or dark as the reader's system is.
(async () => {
  const root = document.documentElement;
  const charts = [...document.querySelectorAll("figure.chart")];
  const settings = JSON.parse(document.getElementById("chart-settings").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const printing = matchMedia("print");

  const fail = (figure, error) => {
    figure.dataset.failed = String(error);
    figure.querySelector(".plot").textContent = "This chart could not be drawn; its numbers are below.";
    figure.querySelector("details")?.setAttribute("open", "");
  };

  const load = async () => {
    const packed = document.getElementById("plotly-packed");
    const bytes = Uint8Array.from(atob(packed.textContent), (character) => character.charCodeAt(0));
    const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(unpacked).text();
    document.head.append(script);
    packed.remove();
    Plotly.setPlotConfig(settings.config);
  };

  const lightened = (spec) =>
    Object.entries(settings.onDark).reduce((text, [colour, lighter]) => text.replaceAll(`"${colour}"`, `"${lighter}"`), spec);

  const draw = (figure, width) => {
    const isDark = dark.matches && !printing.matches && !width;
    const { data, layout } = JSON.parse(isDark ? lightened(figure.spec) : figure.spec);
    const template = isDark ? settings.dark : settings.light;
    const size = width ? { width, autosize: false } : { autosize: true };
    return Plotly.react(figure.querySelector(".plot"), data, { ...layout, ...size, template }, settings.config);
  };

  const pause = () => new Promise((resolve) => setTimeout(resolve));

  if (charts.length) {
    try {
      await load();
    } catch (error) {
      charts.forEach((figure) => fail(figure, error));
      root.dataset.drawn = "failed";
      return;
    }
    for (const figure of charts) {
      try {
        figure.spec = figure.querySelector("script").textContent;
        await draw(figure);
      } catch (error) {
        fail(figure, error);
      }
      await pause();
    }
    const drawn = charts.filter((figure) => !figure.dataset.failed);
    dark.addEventListener("change", () => drawn.forEach((figure) => draw(figure)));
    addEventListener("beforeprint", () => drawn.forEach((figure) => draw(figure, 690)));
    addEventListener("afterprint", () => drawn.forEach((figure) => draw(figure)));
  }
  root.dataset.drawn = "yes";
})();
