"use strict";
// The page of a run. Law: what comes from the run becomes text, never markup; nothing is asked of
// the server while nobody looks at the page; a page that was left open finds a new run by itself.

const POLL_MS = 1000;
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

const state = { graph: null, run: null, history: null, edge: null, watching: false, seenAt: 0 };

// -- making elements ---------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function mark(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

// -- words for numbers ---------------------------------------------------------------------------

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function rate(value) {
  return value >= 100 ? whole.format(value) : value.toFixed(1);
}

function count(value) {
  return whole.format(value);
}

function percent(share) {
  return `${Math.round(share * 100)} %`;
}

function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  return seconds < 100 ? `${seconds.toFixed(seconds < 10 ? 1 : 0)} s` : long(seconds);
}

function long(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 100) return `${s} s`;
  if (s < 6000) return `${Math.floor(s / 60)} min`;
  const hours = Math.floor(s / 3600);
  return hours < 48 ? `${hours} h ${Math.floor((s % 3600) / 60)} min` : `${Math.floor(hours / 24)} d`;
}

function short(text, letters) {
  return text.length <= letters ? text : `${text.slice(0, letters - 1)}…`;
}

const BAD = ["away", "auth_failed", "stalled"];
const WARN = ["blocked", "starting", "loading", "connecting", "reconnecting", "draining", "ending"];
const OK = ["working", "running", "streaming"];

function mood(word) {
  if (BAD.includes(word)) return "bad";
  if (WARN.includes(word)) return "warn";
  return OK.includes(word) ? "ok" : "";
}

function load(share) {
  return share >= 0.85 ? "bad" : share >= 0.6 ? "warn" : "";
}

// -- a small plot --------------------------------------------------------------------------------

function plot(kind, label) {
  const area = draw("path", { class: "area" });
  const curve = draw("path", { class: "curve" });
  const title = draw("title");
  const svg = draw("svg", { class: `spark ${kind}`, viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img" }, title, area, curve);
  svg.show = (values, unit, ceiling) => {
    const known = values.filter((v) => v !== null);
    const top = ceiling || Math.max(1e-9, ...known) * 1.1;
    const step = 100 / Math.max(1, values.length - 1);
    let line = "", last = null;
    values.forEach((v, i) => {
      if (v === null) return;
      line += `${line ? "L" : "M"}${(i * step).toFixed(2)} ${(39 - (Math.min(v, top) / top) * 37).toFixed(2)}`;
      last = i;
    });
    mark(curve, "d", line || "M0 39L100 39");
    mark(area, "d", line ? `${line}L${(last * step).toFixed(2)} 40L0 40Z` : "");
    const words = known.length ? `${label}: now ${unit(known[known.length - 1])}, highest ${unit(Math.max(...known))}` : label;
    say(title, words);
  };
  return svg;
}

// -- the graph -----------------------------------------------------------------------------------

const parts = { stages: [], edges: [], streams: [], rows: [], ledger: [] };

function buildGraph(graph) {
  const [width, height] = graph.size;
  const svg = $("graph");
  svg.replaceChildren();
  mark(svg, "viewBox", `0 0 ${width} ${height}`);
  svg.style.width = "100%";
  svg.style.maxWidth = `${Math.round(width * 1.15)}px`;
  svg.style.minWidth = `${Math.round(width * 0.72)}px`;
  parts.edges = graph.edges.map((edge) => buildEdge(svg, graph, edge));
  parts.stages = graph.stages.map((stage) => buildStage(svg, stage));
}

function buildStage(svg, stage) {
  const [x, y, width, height] = stage.box;
  const kind = stage.kind === "infer" ? "infer" : stage.role;
  const name = stage.workers > 1 ? `${stage.name} (${stage.workers})` : stage.name;
  const middle = y + height / 2 - 41;
  const kind_of = draw("text", { class: "kind", x: x + 18, y: middle + 40 });
  const dot = draw("circle", { class: "state", cx: x + width - 16, cy: middle + 18, r: 4.5 });
  const per_s = draw("text", { class: "rate", x: x + 18, y: middle + 62 });
  const share = draw("text", { class: "share", x: x + width - 12, y: middle + 62, "text-anchor": "end" });
  const bar = draw("rect", { class: "fill", x: x + 18, y: middle + 69, width: 0, height: 5, rx: 2.5 });
  const title = draw("title");
  svg.append(draw("g", { class: `stage ${kind}` }, title,
    draw("rect", { class: "box", x, y, width, height, rx: 11 }),
    draw("rect", { class: "role", x: x + 6, y: y + 9, width: 4, height: height - 18, rx: 2 }),
    draw("text", { class: "name", x: x + 18, y: middle + 23 }, short(name, Math.floor((width - 48) / 9))),
    kind_of, dot, per_s, share,
    draw("rect", { class: "track", x: x + 18, y: middle + 69, width: width - 30, height: 5, rx: 2.5 }), bar));
  return (now) => {
    mark(dot, "class", `state ${mood(now.state)}`);
    say(per_s, `${rate(now.per_s)} /s`);
    say(share, `${percent(now.busy)} busy`);
    const again = now.restarts ? ` · ${now.restarts} ${now.restarts > 1 ? "restarts" : "restart"}` : "";
    say(kind_of, short(stage.kind, Math.floor((width - 30) / 6.2) - again.length) + again);
    mark(bar, "class", `fill ${load(now.busy)}`);
    mark(bar, "width", ((width - 30) * Math.min(1, now.busy)).toFixed(1));
    const about = stage.description ? `\n${stage.description}` : "";
    say(title, `${stage.name}: ${stage.kind}, ${now.state}${about}`);
  };
}

function buildEdge(svg, graph, edge) {
  const [x, y] = edge.end;
  const way = draw("path", { class: "way", d: edge.path });
  const flow = draw("path", { class: "flow", d: edge.path });
  const words = draw("text", { class: "words", x: x - 14, y: y - 6 });
  const under = draw("text", { class: "under", x: x - 14, y: y - 6, "aria-hidden": "true" });
  const title = draw("title");
  const group = draw("g", { class: "edge quiet", tabindex: 0, role: "button" }, title,
    draw("path", { class: "reach", d: edge.path }), way, flow,
    draw("path", { class: "tip", d: `M${x - 7} ${y - 5}L${x + 2} ${y}L${x - 7} ${y + 5}Z` }), under, words);
  const source = graph.stages[edge.source].name, target = graph.stages[edge.target].name;
  group.addEventListener("click", () => choose(edge.index, edge.streams[0], true));
  group.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose(edge.index, edge.streams[0], true);
  });
  svg.append(group);
  return (now) => {
    const lost = now.dropped_per_s + now.failed_per_s;
    const kind = lost > 0 ? "losing" : now.saturation >= 0.85 ? "tight" : now.per_s > 0 ? "flowing" : "quiet";
    const chosen = state.watching && state.edge[0] === edge.index ? " chosen" : "";
    mark(group, "class", `edge ${kind}${chosen}`);
    way.style.strokeWidth = `${(1.6 + Math.min(4, Math.log10(1 + now.per_s) * 1.6)).toFixed(2)}px`;
    const text = `${rate(now.per_s)} /s`, less = lost > 0 ? `  −${rate(lost)}` : "";
    if (words.dataset.text !== text + less) {
      words.dataset.text = text + less;
      words.replaceChildren(text, draw("tspan", { class: "lost" }, less));
      say(under, text + less);
    }
    const about = `${source} to ${target} (${edge.policy}): ${text}` + (lost > 0 ? `, ${rate(lost)} /s lost` : "") +
      `, ${percent(now.saturation)} of its room in use`;
    say(title, about);
    mark(group, "aria-label", `${about}. Show its pictures`);
  };
}

// -- streams -------------------------------------------------------------------------------------

function figure(list, name) {
  const value = make("dd");
  list.append(make("div", {}, make("dt", {}, name), value));
  return value;
}

function chips(list, dropped, failed) {
  const wanted = [...Object.entries(dropped).map(([why, n]) => ["chip", `${count(n)} ${why}`]),
    ...Object.entries(failed).map(([why, n]) => ["chip failed", `${count(n)} ${why}`])];
  const key = JSON.stringify(wanted);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...wanted.map(([kind, text]) => make("li", { class: kind }, text.replace("_", " "))));
}

function buildStream(name, index) {
  const pill = make("span", { class: "pill" });
  const numbers = make("dl"), latencies = make("dl"), losses = make("ul", { class: "chips", "aria-label": "Frames lost" });
  const [fps, arrives, lost] = ["made", "arrive", "lost"].map((n) => figure(numbers, n));
  const [p50, p95, p99] = ["p50", "p95", "p99"].map((n) => figure(latencies, n));
  const spark = plot("fps", "frames per second"), ages = plot("age", "p95 latency");
  const plots = make("div", { class: "plots" }, make("div", {}, spark, "frames/s"), make("div", {}, ages, "p95"));
  const why = make("p", { class: "why", hidden: "" });
  const box = make("article", { class: "stream" }, make("h3", {}, name, pill), plots, make("div", {}, numbers, latencies), why, losses);
  $("streams").append(box);
  return (now, history) => {
    const camera = now.facts.camera || now.state;
    mark(pill, "class", `pill ${mood(camera)}`);
    say(pill, camera.replace("_", " "));
    say(fps, `${rate(now.per_s)} /s`);
    say(arrives, `${rate(now.arrives_per_s)} /s`);
    say(lost, `${rate(now.dropped_per_s)} /s`);
    mark(lost, "class", now.dropped_per_s > 0 ? "lost" : "");
    const latency = now.latency_s || {};
    say(p50, time(latency.p50));
    say(p95, time(latency.p95));
    say(p99, time(latency.p99));
    latencies.title = now.latency_to ? `from capture to ${now.latency_to}` : "";
    const said = now.facts.why && camera !== "streaming" ? `${now.facts.why}${now.facts.for_s === undefined ? "" : `, for ${long(now.facts.for_s)}`}` : "";
    why.hidden = !said;
    say(why, said);
    chips(losses, now.dropped, now.failed);
    const series = history.streams[index] || { per_s: [], p95_s: [] };
    spark.show(series.per_s, (v) => `${rate(v)} /s`);
    ages.show(series.p95_s, time);
  };
}

// -- tables --------------------------------------------------------------------------------------

function head(table, names) {
  const cells = names.map(([name, side]) => make("th", { scope: "col", class: side || "" }, name));
  table.replaceChildren(make("thead", {}, make("tr", {}, ...cells)));
  const body = make("tbody");
  table.append(body);
  return body;
}

function meter(cell) {
  const bar = make("span", { class: "fill" }), text = make("span");
  cell.append(make("span", { class: "meter", "aria-hidden": "true" }, bar), text);
  return (share, colour) => {
    mark(bar, "class", `fill ${colour}`);
    bar.style.width = `${Math.min(100, share * 100).toFixed(1)}%`;
    say(text, percent(share));
  };
}

// What a stage says of itself, but for what stands beside its stream.
function ownWords(facts) {
  const own = Object.entries(facts).filter(([name]) => name !== "why" && name !== "for_s");
  return own.map(([name, value]) => `${name} ${value}`).join(" · ");
}

function buildStageRow(body, stage, index) {
  const rows = [];
  const cells = (row) => {
    const name = make("td", { class: "left" }), where = make("td", { class: "left" });
    const pill = make("span", { class: "pill" });
    where.append(pill);
    const [per_s, busy, blocked, age, restarts, spark] = Array.from({ length: 6 }, () => make("td"));
    const says = make("td", { class: "left says" });
    row.append(name, where, says, per_s, busy, blocked, age, restarts, spark);
    const shows = [meter(busy), meter(blocked)];
    return { name, spark, show: (now) => {
      mark(pill, "class", `pill ${mood(now.state)}`);
      say(pill, now.state);
      say(says, ownWords(now.facts || (now.workers.length === 1 ? now.workers[0].facts : {})));
      say(per_s, `${rate(now.per_s)} /s`);
      shows[0](now.busy, load(now.busy));
      shows[1](now.blocked, now.blocked >= 0.2 ? "warn" : "");
      say(age, time(now.age_s));
      say(restarts, now.restarts ? count(now.restarts) : "–");
    } };
  };
  const row = make("tr"), main = cells(row), spark = plot("busy", "busy");
  main.name.append(make("b", {}, stage.name));
  main.spark.append(spark);
  body.append(row);
  return (now, history) => {
    main.show(now);
    spark.show(history.stages[index].busy, percent, 1);
    if (now.workers.length < 2) return;
    while (rows.length < now.workers.length) {
      const sub = make("tr", { class: "sub" });
      (rows.length ? rows[rows.length - 1].row : row).after(sub);
      rows.push({ row: sub, ...cells(sub) });
    }
    now.workers.forEach((worker, i) => {
      say(rows[i].name, worker.name);
      rows[i].show(worker);
    });
  };
}

function buildLedgerRow(body, graph, edge, i) {
  const source = graph.stages[edge.source].name, target = graph.stages[edge.target].name;
  const many = edge.streams.length > 1;
  const [room, claimed, delivered, flight, p95] = Array.from({ length: 5 }, () => make("td"));
  const losses = make("ul", { class: "chips" });
  const open = make("button", { type: "button", "aria-label": `Watch ${source} to ${target}` }, "watch");
  const stream = edge.streams[i];
  const row = make("tr", { class: "open" },
    make("td", { class: "left" }, make("b", {}, `${source} → ${target}`)),
    make("td", { class: "left" }, many || stream !== source ? stream : "–"),
    room, claimed, delivered, flight, p95, make("td", { class: "left" }, losses));
  row.addEventListener("click", () => choose(edge.index, stream, true));
  body.append(row);
  const show = meter(room);
  return (told) => {
    const now = told.streams.find((each) => each.stream === stream);
    if (!now) return;
    show(now.saturation, now.saturation >= 0.85 ? "warn" : "");
    say(claimed, count(now.claimed));
    say(delivered, count(now.delivered));
    say(flight, count(now.in_flight));
    say(p95, time((now.latency_s || {}).p95));
    chips(losses, now.dropped, now.failed);
  };
}

// -- the live picture ----------------------------------------------------------------------------

function buildSources(graph) {
  const options = graph.edges.flatMap((edge) => edge.streams.map((stream, i) => {
    const name = `${graph.stages[edge.source].name} → ${graph.stages[edge.target].name}`;
    const words = edge.streams.length > 1 ? `${name} · ${stream}` : name;
    return make("option", { value: `${edge.index}/${i}` }, words);
  }));
  $("source").replaceChildren(...options);
  const first = graph.edges.find((edge) => graph.stages[edge.source].kind === "infer") || graph.edges[0];
  state.edge = first && first.streams.length ? [first.index, first.streams[0]] : null;
  select();
}

function select() {
  if (!state.edge) return;
  const [index, stream] = state.edge;
  $("source").value = `${index}/${state.graph.edges[index].streams.indexOf(stream)}`;
}

function choose(index, stream, watch) {
  state.edge = [index, stream];
  select();
  if (watch || state.watching) {
    start();
    $("live").scrollIntoView({ block: "nearest", behavior: "smooth" });
  }
}

function address(what) {
  const [index, stream] = state.edge;
  return `api/v1/edges/${index}/${what}?stream=${encodeURIComponent(stream)}`;
}

function start() {
  if (!state.edge) return;
  state.watching = true;
  say($("watch"), "Stop");
  const [index, stream] = state.edge, edge = state.graph.edges[index];
  const name = `${state.graph.stages[edge.source].name} to ${state.graph.stages[edge.target].name}`;
  $("picture").alt = `Live picture of ${name}, stream ${stream}`;
  $("picture").src = `${address("stream.mjpeg")}&t=${Date.now()}`;
  say($("caption"), "");
  dark("Waiting for a frame…");
}

function stop(words) {
  state.watching = false;
  say($("watch"), "Watch");
  $("picture").removeAttribute("src");
  say($("caption"), "");
  dark(words || "Pictures are made only while somebody watches.");
}

function dark(words) {
  $("picture").hidden = true;
  $("dark").hidden = false;
  say($("dark"), words);
}

async function describe() {
  if (!state.watching) return;
  const asked = state.edge;
  let told;
  try {
    told = await ask(address("frame.json"));
  } catch (error) {
    if (state.watching) dark(error.message);
    return;
  }
  if (!state.watching || asked !== state.edge) return;
  if (told.image === null) {
    const arrays = Object.entries(told.arrays).map(([name, a]) => `${name} ${a.dtype} ${a.shape.join("×")}`);
    dark(`These frames have no picture. ${arrays.join(", ")}`);
  } else if ($("picture").naturalWidth > 0) {
    $("dark").hidden = true;
    $("picture").hidden = false;
  }
  const found = told.detections === null ? "" : ` · ${told.detections.length} found`;
  const size = told.image === null ? "" : `${told.image.width}×${told.image.height} ${told.image.format} · `;
  say($("caption"), `${size}frame ${count(told.seq)} · ${time(told.age_s)} old${found}`);
}

// -- the run -------------------------------------------------------------------------------------

async function ask(path) {
  let answer;
  try {
    // Not relative to the address: one that holds name and token cannot be fetched from.
    answer = await fetch(new URL(path, location.origin + location.pathname), { signal: AbortSignal.timeout(8000), cache: "no-store" });
  } catch {
    throw new Error("no answer");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error || `answer ${answer.status}`);
  return told;
}

async function begin() {
  const [graph, history] = await Promise.all([ask("api/v1/graph"), ask("api/v1/history")]);
  Object.assign(state, { graph, history, run: null });
  document.title = `${graph.name} · ovpipe`;
  say($("name"), graph.name);
  buildSources(graph);
  buildGraph(graph);
  $("streams").replaceChildren();
  parts.streams = graph.streams.map(buildStream);
  const stages = head($("stages"), [["stage", "left"], ["state", "left"], ["says", "left"], ["rate"], ["busy"], ["blocked"], ["age"], ["restarts"], ["busy, last minutes"]]);
  parts.rows = graph.stages.map((stage, i) => buildStageRow(stages, stage, i));
  const ledger = head($("ledger"), [["edge", "left"], ["stream", "left"], ["room in use"], ["claimed"], ["delivered"], ["in flight"], ["p95"], ["lost, by reason", "left"]]);
  parts.ledger = graph.edges.map((edge) => edge.streams.map((_, i) => buildLedgerRow(ledger, graph, edge, i)));
}

function keep(series, now, longest) {
  for (const key of Object.keys(now)) {
    const values = series[key] = series[key] || [];
    values.push(now[key]);
    if (values.length > longest) values.shift();
  }
}

function remember(told) {
  const history = state.history;
  if (history.at_ns === told.at_ns) return;
  history.at_ns = told.at_ns;
  const kept = {
    stages: ["per_s", "busy"],
    edges: ["per_s", "dropped_per_s", "saturation"],
    streams: ["per_s", "dropped_per_s", "p95_s"],
  };
  for (const [what, keys] of Object.entries(kept)) {
    told[what].forEach((each, i) => {
      history[what][i] = history[what][i] || {};
      keep(history[what][i], Object.fromEntries(keys.map((key) => [key, each[key]])), 300);
    });
  }
}

function facts(told) {
  const restarts = told.stages.reduce((sum, stage) => sum + stage.restarts, 0);
  const list = $("facts"), shown = [["up", long(Date.now() / 1000 - told.started_s)], ["restarts", count(restarts)]];
  const key = JSON.stringify(shown);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...shown.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function show(told) {
  state.seenAt = Date.now();
  remember(told);
  facts(told);
  mark($("phase"), "class", `pill ${mood(told.phase)} ${told.phase === "running" ? "beat" : ""}`);
  say($("phase"), told.phase);
  const [first, ...losses] = told.verdict;
  $("verdict").hidden = !first;
  say($("limit"), first || "");
  $("losses").hidden = !losses.length;
  say($("more"), losses.length === 1 ? "frames are lost on an edge" : `frames are lost in ${losses.length} ways`);
  say($("lines"), losses.join("\n"));
  $("verdict").className = losses.length || /is saturated/.test(first || "") ? "warn" : "";
  told.stages.forEach((stage, i) => {
    parts.stages[i](stage);
    parts.rows[i](stage, state.history);
  });
  told.edges.forEach((edge, i) => {
    parts.edges[i](edge);
    for (const row of parts.ledger[i]) row(edge);
  });
  told.streams.forEach((stream, i) => parts.streams[i](stream, state.history));
}

function notice(words) {
  $("notice").hidden = !words;
  say($("notice"), words);
  document.body.classList.toggle("stale", Boolean(words));
  $("main").querySelectorAll(".card").forEach((card) => card.classList.toggle("ended", Boolean(words)));
}

function since() {
  return state.seenAt ? ` Shown is how it was at ${new Date(state.seenAt).toLocaleTimeString()}.` : "";
}

async function poll() {
  try {
    if (!state.graph) await begin();
    const told = await ask("api/v1/status");
    const run = told.pid === undefined ? null : `${told.pid} ${told.started_s}`;
    if (run !== null && state.run !== null && run !== state.run) {
      stop();
      await begin(); // another run at the same address
    }
    if (run !== null) {
      state.run = run;
      show(told);
    }
    notice(told.why ? `${told.why[0].toUpperCase()}${told.why.slice(1)}.${since()}` : "");
    await describe();
  } catch (error) {
    const ended = state.seenAt ? "The run has ended, or cannot be reached" : "The run cannot be reached";
    notice(`${ended} (${error.message}).${since()} This page waits for it.`);
    mark($("phase"), "class", "pill bad");
    say($("phase"), "no contact");
    if (state.watching) stop("The run does not answer.");
  }
}

async function forever() {
  for (;;) {
    if (!document.hidden) await poll();
    await new Promise((go) => {
      setTimeout(go, POLL_MS);
    });
  }
}

$("source").addEventListener("change", () => {
  const [index, i] = $("source").value.split("/").map(Number);
  choose(index, state.graph.edges[index].streams[i], false);
});
$("watch").addEventListener("click", () => (state.watching ? stop() : start()));
$("picture").addEventListener("load", () => {
  $("dark").hidden = true;
  $("picture").hidden = false;
});
$("picture").addEventListener("error", () => {
  if (state.watching) stop("The picture ended: as many watch as may, or the run does not answer.");
});
document.addEventListener("visibilitychange", () => {
  if (!state.watching) return;
  if (document.hidden) $("picture").removeAttribute("src");
  else start();
});
$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = getComputedStyle(root).colorScheme === "dark" ||
    (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("ovpipe-theme", root.dataset.theme);
  } catch { /* a browser that keeps nothing */ }
});
try {
  const theme = localStorage.getItem("ovpipe-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* a browser that keeps nothing */ }
forever();
