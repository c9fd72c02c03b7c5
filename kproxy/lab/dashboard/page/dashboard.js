"use strict";
// Asks for the view, once a second at most and only while somebody looks on, and shows it. Text is
// only ever set as text. What has not changed is left alone, so that a button is not taken away
// from under a finger.
(() => {
  const token = new URLSearchParams(location.search).get("token") || "";
  const headers = {"X-Kproxy-Token": token};
  const PAUSE_MS = 1000, WAIT_MS = 5000;
  const at = id => document.getElementById(id);
  const shown = new Map(), charts = new Map(), cards = new Map();
  let timer = 0, heard = 0;

  function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes))
      if (value === true) made.setAttribute(key, "");
      else if (value) made.setAttribute(key, value);
    made.append(...children.filter(child => child !== null && child !== ""));
    return made;
  }

  function changed(key, value) {
    const text = JSON.stringify(value);
    if (shown.get(key) === text) return false;
    shown.set(key, text);
    return true;
  }

  function time(seconds) {
    return new Date(seconds * 1000).toLocaleTimeString([], {hour12: false});
  }

  function age(seconds) {
    if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
    return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
  }

  function table(head, rows, empty) {
    if (!rows.length) return make("p", {class: "empty"}, empty);
    return make("div", {class: "scroll", tabindex: "0"}, make("table", {},
      make("thead", {}, make("tr", {}, ...head.map(name => make("th", {scope: "col"}, name)))),
      make("tbody", {}, ...rows.map(row => make("tr", {}, ...row)))));
  }

  const cell = (text, kind) => make("td", {class: kind}, String(text));

  // Hosts.

  async function order(button, what) {
    button.disabled = true;
    let answer;
    try {
      const sent = await fetch("order", {
        method: "POST", headers: {...headers, "Content-Type": "application/json"}, body: JSON.stringify(what),
      });
      answer = await sent.json();
    } catch (error) {
      answer = {error: "nobody answers"};
    }
    button.disabled = false;
    const place = at("done");
    place.hidden = false;
    place.className = answer.error ? "done bad" : "done";
    place.textContent = answer.error || answer.done;
    soon(0);
  }

  function button(text, about, what, breaks = true) {
    const label = `${text} ${about}`;
    const made = make("button", {type: "button", class: breaks && "breaks", "aria-label": label, "data-key": label}, text);
    made.addEventListener("click", () => order(made, what));
    return made;
  }

  function faults(host, open) {
    const rows = [];
    if (["control", "etcd", "monitor", "node"].includes(host.kind)) {
      const cable = host.plugged
        ? button("Unplug", host.name, {fault: "unplug", host: host.name})
        : button("Plug in", host.name, {fault: "plug", host: host.name}, false);
      const away = !host.plugged || host.parts.some(one => one.state === "down");
      rows.push(make("div", {}, make("span", {}, "the host"), cable, away
        ? button("Switch on", host.name, {fault: "power-on", host: host.name}, false)
        : button("Switch off", host.name, {fault: "power-off", host: host.name})));
    }
    for (const part of host.parts) {
      const about = `${part.role} on ${host.name}`, what = {host: host.name, role: part.role};
      const hang = part.state === "hung"
        ? button("Resume", about, {fault: "resume", ...what}, false)
        : button("Hang", about, {fault: "hang", ...what});
      if (part.state !== "down")
        rows.push(make("div", {}, make("span", {}, part.role), button("Kill", about, {fault: "kill", ...what}), hang));
    }
    for (const pod of host.pods)
      rows.push(make("div", {}, make("span", {}, pod.name), button("Delete", pod.name, {fault: "delete", pod: pod.name})));
    if (!rows.length) return null;
    return make("details", {open}, make("summary", {}, "Break something"), make("div", {class: "faults"}, ...rows));
  }

  function part(one) {
    const words = [one.role + (one.leads ? " ★" : "")];
    if (one.state !== "up") words.push(one.state);
    if (one.restarts) words.push(`${one.restarts}×`);
    const title = [one.leads && "leads", one.restarts && `started again ${one.restarts} times`].filter(Boolean).join(", ");
    return make("li", {class: one.state !== "up" && "bad", title}, words.join(" "));
  }

  function pod(one) {
    const state = one.phase === "Running" ? "not ready" : one.phase;
    const words = [one.name, one.well ? "" : state, one.restarts ? `${one.restarts}×` : ""];
    return make("li", {class: !one.well && "bad"}, words.filter(Boolean).join(" "));
  }

  function card(host, allowed, open) {
    const sick = !host.plugged || host.ready === false || host.parts.some(one => one.state !== "up");
    const state = [!host.plugged && "unplugged", host.ready === false && "not ready"].filter(Boolean).join(", ");
    const made = make("article", {class: `host ${host.kind}${sick ? " sick" : ""}${host.plugged ? "" : " unplugged"}`},
      make("h4", {}, host.name, make("small", {}, host.kind === host.name ? "" : host.kind), state && make("span", {class: "bad"}, state)),
      make("p", {}, host.addresses.join(" ")));
    if (host.link) made.append(make("p", {}, `link: ${host.link}`));
    made.append(make("p", {class: "rate"}));
    if (host.parts.length) made.append(make("ul", {class: "list"}, ...host.parts.map(part)));
    if (host.pods.length) made.append(make("ul", {class: "list pods"}, ...host.pods.map(pod)));
    const buttons = allowed && faults(host, open);
    if (buttons) made.append(buttons);
    return made;
  }

  function hosts(view) {
    if (changed("segments", view.segments.map(one => [one.name, one.hosts.map(host => host.name)]))) {
      cards.clear();
      at("segments").replaceChildren(...view.segments.map(one => {
        const place = host => {
          const made = make("div");
          cards.set(host.name, made);
          shown.delete(`host ${host.name}`);
          return made;
        };
        const [nodes, others] = [true, false].map(wanted => one.hosts.filter(host => (host.kind === "node") === wanted));
        return make("div", {class: "segment"}, make("h3", {}, `segment ${one.name}`),
          ...[others, nodes].filter(some => some.length).map(some => make("div", {class: "hosts"}, ...some.map(place))));
      }));
    }
    for (const host of view.segments.flatMap(one => one.hosts)) {
      const place = cards.get(host.name), {received, sent, ...rest} = host;
      if (changed(`host ${host.name}`, [rest, view.faults])) {
        const open = place.querySelector("details")?.open;
        const focus = place.contains(document.activeElement) && document.activeElement.dataset.key;
        place.replaceChildren(card(host, view.faults, open));
        if (focus) place.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus();
      }
      const rate = sent === null ? "" : `packets: ${Math.round(received)}/s in, ${Math.round(sent)}/s out`;
      place.querySelector(".rate").textContent = rate;
    }
  }

  // The rest.

  function tiles(view) {
    if (!changed("tiles", view.tiles)) return;
    at("tiles").replaceChildren(...view.tiles.map(one => make("div", {class: "tile"},
      make("span", {}, one.label), make("b", {class: one.tone}, one.value), make("small", {}, one.note))));
  }

  function flows(view) {
    for (const data of view.charts) {
      if (!charts.has(data.id)) {
        const made = new Chart(data.title);
        charts.set(data.id, made);
        at("charts").append(made.element);
      }
      charts.get(data.id).show(data, view.now);
    }
  }

  function alerts(view) {
    const rows = view.alerts.map(one => [
      cell(one.state, one.state === "firing" && one.severity !== "none" ? "bad" : "loss"),
      make("th", {scope: "row"}, one.name), cell(one.severity), cell(one.where), cell(age(view.now - one.since), "nowrap"), cell(one.text, "wide"),
    ]);
    const empty = view.monitored ? "None: neither pending nor firing." : "This lab has no Prometheus (monitoring: true in its file).";
    if (changed("alerts", [view.monitored, view.alerts.map(one => [one, age(view.now - one.since)])]))
      at("alerts").replaceChildren(table(["State", "Alert", "Severity", "Where", "For", "What"], rows, empty));
  }

  function leaders(view) {
    if (!changed("leaders", view.leaders)) return;
    const rows = view.leaders.map(one => [
      make("th", {scope: "row"}, one.role), cell(one.host || "nobody", one.host ? "" : "bad"),
    ]);
    at("leaders").replaceChildren(table(["Of", "Leads"], rows, "Nobody is elected in this lab."));
  }

  function services(view) {
    if (!changed("services", view.services)) return;
    const percent = one => one.loss === null ? "–" : `${(100 * one.loss).toFixed(one.loss ? 2 : 0)} %`;
    const rows = view.services.map(one => [
      make("th", {scope: "row"}, one.name), cell(one.type), cell(one.addresses.join(" ")), cell(one.ports.join(" ")),
      cell(one.endpoints, one.endpoints ? "" : "bad"), cell(percent(one), one.loss ? "loss" : ""),
      cell(one.latency_ms === null ? "–" : `${one.latency_ms.toFixed(1)} ms`),
    ]);
    at("services").replaceChildren(table(["Service", "Type", "Addresses", "Ports", "Endpoints", "Loss", "Latency p99"], rows, "None."));
  }

  function events(view) {
    if (!changed("events", view.events)) return;
    const rows = view.events.map(one => [
      cell(time(one.at), "nowrap"), cell(one.reason, one.kind === "Normal" ? "" : one.kind === "Fault" ? "loss" : "bad"),
      cell(one.about), cell(one.text + (one.count > 1 ? ` (${one.count}×)` : ""), "wide"),
    ]);
    at("events").replaceChildren(table(["Time", "Reason", "About", "What"], rows, "None yet."));
  }

  function trouble(lines) {
    if (!changed("trouble", lines)) return;
    at("trouble").hidden = !lines.length;
    at("trouble").replaceChildren(...lines.map(line => make("p", {}, line)));
  }

  function show(view) {
    heard = Date.now();
    if (changed("words", view.words)) at("words").textContent = view.words.join(" · ");
    trouble(view.trouble);
    tiles(view);
    hosts(view);
    flows(view);
    alerts(view);
    leaders(view);
    services(view);
    events(view);
    live("live", false);
    document.documentElement.dataset.ready = "yes";
  }

  function live(text, bad) {
    at("live").textContent = text;
    at("live").className = bad ? "live bad" : "live";
  }

  async function look() {
    if (document.hidden) return;
    let answer;
    try {
      const found = await fetch("view", {headers});
      answer = await found.json();
    } catch (error) {
      answer = {error: "nobody answers: has `kproxy lab dashboard` ended?"};
    }
    if (answer.view) show(answer.view);
    else {
      live(heard ? `old: as it was at ${time(heard / 1000)}` : "no answer", true);
      trouble([answer.error]);
    }
    soon(answer.view ? PAUSE_MS : WAIT_MS);
  }

  function soon(wait) {
    clearTimeout(timer);
    timer = setTimeout(look, wait);
  }

  const theme = at("theme");
  theme.addEventListener("change", () => {
    if (theme.value) document.documentElement.dataset.theme = theme.value;
    else delete document.documentElement.dataset.theme;
  });
  document.addEventListener("visibilitychange", () => document.hidden || soon(0));
  look();
})();
