(function () {
  "use strict";
  var plots = Array.prototype.slice.call(document.querySelectorAll(".plot"));
  var settings = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

  function fall_back(plot) {
    plot.closest("figure").classList.add("still");
  }

  function next() {
    var plot = plots.shift();
    if (!plot) { return; }
    var scene = JSON.parse(document.getElementById(plot.dataset.source).textContent);
    try {
      Plotly.newPlot(plot, scene.data, scene.layout, settings).catch(function () { fall_back(plot); });
    } catch (problem) {
      fall_back(plot);
    }
    window.setTimeout(next, 0);
  }

  next();
})();
