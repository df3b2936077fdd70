// The status page. It asks the same /v1 as everybody else, and writes only text
// into the document, never markup: names and reasons come from others.
'use strict';

const interval = 3000;         // between two looks at states
const historyInterval = 30000; // between two looks at the last hour
const svgNS = 'http://www.w3.org/2000/svg';

const $ = (id) => document.getElementById(id);
const rows = new Map(); // by name of the backend
let live = true;
let role = '';
let csrf = '';
let historyOf = new Map();
let historyAt = 0;
let lastAnswer = 0;
let lastSummary = '';
let asking = null; // what the dialog asks about

async function get(path) {
  const response = await fetch(path, {headers: {Accept: 'application/json'}, credentials: 'same-origin'});
  const answer = await response.json();
  if (!response.ok && response.status !== 503) {
    throw new Error(answer.error || `${path}: ${response.status}`);
  }
  return answer;
}

function make(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    e.setAttribute(name, value);
  }
  e.append(...children);
  return e;
}

// say changes a text only if it is another one, so that nothing is read aloud
// or drawn again for no reason.
function say(e, text) {
  if (e.textContent !== text) {
    e.textContent = text;
  }
}

function pill(e, text, kind) {
  const mark = {good: '✓ ', warn: '! ', bad: '✗ '}[kind] || '';
  say(e, mark + text);
  const name = 'pill ' + kind;
  if (e.className !== name) {
    e.className = name;
  }
}

function number(n) {
  if (n === undefined || n === null || Number.isNaN(n)) {
    return '–';
  }
  return n >= 100 || Number.isInteger(n) ? Math.round(n).toLocaleString('en') : n.toFixed(n >= 10 ? 1 : 2);
}

function time(seconds) {
  if (seconds === undefined || seconds === null || Number.isNaN(seconds)) {
    return '–';
  }
  if (seconds < 1) {
    return number(Math.round(seconds * 10000) / 10) + ' ms';
  }
  return seconds < 120 ? number(seconds) + ' s' : Math.round(seconds / 60) + ' min';
}

function ago(text) {
  const s = Math.max(0, (Date.now() - Date.parse(text)) / 1000);
  if (s < 60) {
    return Math.floor(s) + ' s ago';
  }
  if (s < 3600) {
    return Math.floor(s / 60) + ' min ago';
  }
  return s < 172800 ? Math.floor(s / 3600) + ' h ago' : Math.floor(s / 86400) + ' days ago';
}

function clock(text) {
  return make('time', {datetime: text, title: text}, new Date(text).toLocaleTimeString([], {hour12: false}));
}

// plot draws a series of the last hour, null where nothing is known.
function plot(svg, series, words) {
  const known = series.filter((v) => v !== null && v !== undefined);
  const most = Math.max(...known, 0);
  const [w, h] = [120, 24];
  let line = '';
  let area = '';
  let from = -1;
  const x = (i) => (series.length < 2 ? w : i * w / (series.length - 1)).toFixed(1);
  const y = (v) => (most > 0 ? h - 1 - v / most * (h - 3) : h - 1).toFixed(1);
  const close = (i) => {
    if (from >= 0) {
      area += `L${x(i)} ${h}L${x(from)} ${h}Z`;
    }
    from = -1;
  };
  series.forEach((v, i) => {
    if (v === null || v === undefined) {
      close(i - 1);
      return;
    }
    line += `${from < 0 ? 'M' : 'L'}${x(i)} ${y(v)}`;
    area += `${from < 0 ? 'M' : 'L'}${x(i)} ${y(v)}`;
    if (from < 0) {
      from = i;
    }
  });
  close(series.length - 1);
  svg.querySelector('.line').setAttribute('d', line);
  svg.querySelector('.area').setAttribute('d', area);
  svg.setAttribute('aria-label', known.length ? `last hour: ${words(known.at(-1))} now, at most ${words(most)}` : 'last hour: nothing known yet');
}

function newPlot(kind) {
  const svg = document.createElementNS(svgNS, 'svg');
  svg.setAttribute('class', 'plot ' + kind);
  svg.setAttribute('viewBox', '0 0 120 24');
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('role', 'img');
  for (const part of ['area', 'line']) {
    const path = document.createElementNS(svgNS, 'path');
    path.setAttribute('class', part);
    svg.append(path);
  }
  return svg;
}

function cell(label, ...children) {
  return make('td', {'data-label': label, role: 'cell'}, ...children);
}

function newRow(name) {
  const r = {
    name: document.createTextNode(''), shard: make('small'), operator: make('span'), health: make('span'), breaker: make('span'),
    meter: make('meter', {min: '0'}), used: make('span'), waiting: make('span'),
    rate: make('span'), ratePlot: newPlot('rate'), latency: make('span'), latencyPlot: newPlot('latency'),
    failed: make('span'), failedPlot: newPlot('errors'), last: make('small', {class: 'last'}),
    drain: make('button', {type: 'button'}), resume: make('button', {type: 'button'}),
  };
  r.drain.textContent = 'Drain';
  r.resume.textContent = 'Resume';
  r.drain.setAttribute('aria-label', `Drain ${name}`);
  r.resume.setAttribute('aria-label', `Resume ${name}`);
  r.drain.addEventListener('click', () => ask(name, 'draining'));
  r.resume.addEventListener('click', () => ask(name, 'active'));
  r.acts = make('td', {class: 'acts', role: 'cell'}, r.drain, r.resume);
  r.row = make('tr', {role: 'row'},
    make('th', {scope: 'row', role: 'rowheader'}, r.name, r.shard),
    cell('Operator', r.operator), cell('Health', r.health), cell('Breaker', r.breaker),
    cell('Connections', make('div', {}, r.used, r.meter)), cell('Waiting', r.waiting),
    cell('Commands/s', make('div', {}, r.rate, r.ratePlot)), cell('p50 / p95 / p99', make('div', {}, r.latency, r.latencyPlot)),
    cell('Failed', make('div', {}, r.failed, r.failedPlot, r.last)), r.acts);
  return r;
}

function troubleOf(b) {
  if (b.operator !== 'active') {
    return 'warn';
  }
  return b.health === 'failing' || b.breaker !== 'closed' ? 'bad' : '';
}

function showBackend(r, b) {
  say(r.name, b.name + (b.standby ? ' (standby)' : ''));
  say(r.shard, `${b.shard} · ${b.address}`);
  pill(r.operator, b.operator, b.operator === 'active' ? 'good' : 'warn');
  pill(r.health, b.health, {up: 'good', failing: 'bad'}[b.health] || '');
  pill(r.breaker, b.breaker, {closed: 'good', open: 'bad'}[b.breaker] || 'warn');
  say(r.used, `${b.in_use} used, ${b.open} open of ${b.max_open}`);
  r.meter.max = b.max_open;
  r.meter.value = b.in_use;
  r.meter.textContent = r.used.textContent;
  r.meter.setAttribute('aria-label', `connections of ${b.name} in use`);
  say(r.waiting, number(b.waiting));
  const recent = b.last_error_at && Date.now() - Date.parse(b.last_error_at) < 3600e3;
  say(r.last, recent ? `${ago(b.last_error_at)}: ${b.last_error}` : '');
  const may = role === 'operator' || role === 'admin';
  r.drain.hidden = !may || b.operator !== 'active';
  r.resume.hidden = !may || b.operator === 'active';
  r.acts.classList.toggle('empty', !may);
  const trouble = troubleOf(b);
  if (trouble !== r.trouble || r.text === undefined) {
    r.trouble = trouble;
    r.text = `${b.name} ${b.shard} ${b.address}`.toLowerCase();
  }
}

function showHistory(r, h) {
  const last = (series) => series.length ? series.at(-1) : null;
  const none = {rate: [], failed: [], p50: [], p95: [], p99: []};
  const s = h || none;
  say(r.rate, number(last(s.rate)));
  plot(r.ratePlot, s.rate, (v) => number(v) + ' commands a second');
  say(r.latency, `${time(last(s.p50))} / ${time(last(s.p95))} / ${time(last(s.p99))}`);
  plot(r.latencyPlot, s.p95, (v) => 'p95 ' + time(v));
  const share = s.rate.map((rate, i) => rate ? 100 * s.failed[i] / rate : (rate === 0 ? 0 : null));
  say(r.failed, last(share) === null ? '–' : number(last(share)) + ' %');
  plot(r.failedPlot, share, (v) => number(v) + ' % failed');
}

function filter() {
  const wanted = $('find').value.trim().toLowerCase();
  const troubled = $('troubled').checked;
  let shown = 0;
  for (const r of rows.values()) {
    const hide = !r.text.includes(wanted) || troubled && r.trouble === '';
    if (r.row.hidden !== hide) {
      r.row.hidden = hide;
    }
    shown += hide ? 0 : 1;
  }
  return shown;
}

function showBackends(all) {
  const body = $('backend-table').tBodies[0];
  const seen = new Set();
  all.forEach((b, i) => {
    let r = rows.get(b.name);
    if (!r) {
      r = newRow(b.name);
      rows.set(b.name, r);
      showHistory(r, historyOf.get(b.name));
    }
    if (body.rows[i] !== r.row) {
      body.insertBefore(r.row, body.rows[i] || null);
    }
    showBackend(r, b);
    seen.add(b.name);
  });
  for (const [name, r] of rows) {
    if (!seen.has(name)) {
      r.row.remove();
      rows.delete(name);
    }
  }
  const bad = all.filter((b) => troubleOf(b) === 'bad').length;
  const out = all.filter((b) => troubleOf(b) === 'warn').length;
  const shown = filter();
  const summary = `${all.length} backend${all.length === 1 ? '' : 's'}: ` +
    (bad + out === 0 ? 'nothing speaks against any of them' : `${bad} in trouble, ${out} taken out of service`) +
    (shown < all.length ? `; ${shown} shown` : '') + '.';
  if (summary !== lastSummary) {
    lastSummary = summary;
    say($('summary'), summary);
  }
}

function showFacts(s, total) {
  const facts = [
    ['Up', ago(s.started).replace(' ago', '')],
    ['Process', String(s.pid)],
    ['Configuration', s.config],
    ['Sessions', number(s.sessions)],
    ['Commands/s', number(total)],
    ['Backends available', `${s.available} of ${s.backends}`],
  ];
  if (s.reload && s.reload.error) {
    facts.push(['Last reload', `failed ${ago(s.reload.at)}: ${s.reload.error}`]);
  } else if (s.reload && s.reload.at) {
    facts.push(['Last reload', ago(s.reload.at)]);
  }
  const dl = $('facts');
  facts.forEach(([name, value], i) => {
    let at = dl.children[i];
    if (!at) {
      at = make('div', {}, make('dt'), make('dd'));
      dl.append(at);
    }
    say(at.children[0], name);
    say(at.children[1], value);
  });
  while (dl.children.length > facts.length) {
    dl.lastElementChild.remove();
  }
}

function showList(parent, items, key, build) {
  const k = items.map(key).join('\n');
  if (parent.dataset.key === k) {
    return;
  }
  parent.dataset.key = k;
  parent.replaceChildren(...items.map(build));
}

function showCommands(table, commands) {
  const row = (c) => make('tr', {role: 'row'}, cell('Ended', clock(c.ended)), cell('Client', c.client || '–'), cell('User', c.user || '–'),
    cell('Command', c.command), cell('Backend', c.backend || '–'), cell('Outcome', c.status ? `${c.outcome} ${c.status}` : c.outcome),
    cell('Took', time(c.duration_ms / 1e3)), cell('Reason', c.reason || '–'));
  const none = () => make('tr', {role: 'row'}, make('td', {colspan: '8', role: 'cell'}, 'None in the last hour.'));
  const list = commands.length ? commands.slice(0, 20) : [null];
  showList(table.tBodies[0], list, (c) => c ? `${c.session} ${c.ended} ${c.command}` : '-', (c) => c ? row(c) : none());
}

function showEvents(events) {
  const list = events.length ? events.slice(0, 30) : [null];
  const kinds = {error: 'bad', warn: 'warn'};
  const item = (e) => {
    const level = make('span');
    pill(level, e.level, kinds[e.level] || '');
    const fields = Object.entries(e.fields || {}).map(([name, value]) => `${name}=${value}`).join(' ');
    const count = e.count > 1 ? ` (${number(e.count)} times)` : '';
    return make('li', {}, clock(e.time), level, ` ${e.message}${count} `, make('small', {}, fields));
  };
  showList($('events'), list, (e) => e ? `${e.time} ${e.count} ${e.message}` : '-', (e) => e ? item(e) : make('li', {}, 'None yet.'));
}

// hourOf takes the answer of /v1/history apart.
function hourOf(answer) {
  const all = new Map();
  const points = Math.round(3600 / answer.step);
  // A backend that has not been there for an hour begins later.
  const whole = (series, factor) => [...new Array(Math.max(0, points - series.length)).fill(null), ...series.map((v) => v * factor)];
  for (const b of answer.backends || []) {
    all.set(b.name, {
      rate: whole(b.rate, 1), failed: whole(b.failed, 1),
      p50: whole(b.p50_ms, 1e-3), p95: whole(b.p95_ms, 1e-3), p99: whole(b.p99_ms, 1e-3),
    });
  }
  return all;
}

async function look() {
  const [status, backends] = await Promise.all([get('/v1/status'), get('/v1/backends')]);
  if (Date.now() - historyAt >= historyInterval) {
    historyAt = Date.now();
    const [hour, events, slowest, failed] = await Promise.all([get('/v1/history?step=60'), get('/v1/events'), get('/v1/commands/slowest'), get('/v1/commands/failed')]);
    historyOf = hourOf(hour);
    for (const [name, r] of rows) {
      showHistory(r, historyOf.get(name));
    }
    showEvents(events.events || []);
    showCommands($('slowest'), slowest.commands || []);
    showCommands($('failed'), failed.commands || []);
  }
  say($('version'), status.version);
  const reason = status.not_ready || 'accepts no new sessions';
  pill($('ready'), status.ready ? 'accepts sessions' : reason, status.ready ? 'good' : 'bad');
  let total = 0;
  for (const h of historyOf.values()) {
    total += h.rate.length ? h.rate.at(-1) || 0 : 0;
  }
  showFacts(status, total);
  showBackends(backends.backends || []);
}

async function turn() {
  if (live && !document.hidden) {
    try {
      await look();
      lastAnswer = Date.now();
      $('stale').hidden = true;
    } catch (problem) {
      pill($('stale'), lastAnswer ? `no answer since ${new Date(lastAnswer).toLocaleTimeString([], {hour12: false})}: ${problem.message}` : problem.message, 'bad');
      $('stale').hidden = false;
    }
  }
  setTimeout(turn, interval);
}

function ask(name, state) {
  asking = {name, state, from: document.activeElement};
  const draining = state === 'draining';
  say($('ask-title'), `${draining ? 'Drain' : 'Resume'} ${name}?`);
  say($('ask-text'), draining ?
    'Commands that run on it end. Those that wait for it and all to come go to the other backends of its shard; where there is none, they are answered with a temporary failure. It stays so, also over a restart, until it is resumed.' :
    'It is used again. Over the slow_start of its shard it gets its users back.');
  say($('ask-yes'), draining ? 'Drain' : 'Resume');
  $('ask-problem').hidden = true;
  $('ask-yes').disabled = false;
  $('ask').showModal();
  $('ask-no').focus();
}

async function confirmed() {
  $('ask-yes').disabled = true;
  const {name, state} = asking;
  try {
    const response = await fetch(`/v1/backends/${encodeURIComponent(name)}/state`, {
      method: 'POST', credentials: 'same-origin', body: JSON.stringify({state}),
      headers: {'Content-Type': 'application/json', 'X-CSRF-Token': csrf},
    });
    const answer = await response.json();
    if (!response.ok) {
      throw new Error(answer.error || String(response.status));
    }
    // First, so that the button which gets the focus back is there.
    if (rows.has(name)) {
      showBackend(rows.get(name), answer);
    }
    $('ask').close();
    say($('said'), `${name} is ${answer.operator}.`);
    await look();
  } catch (problem) {
    say($('ask-problem'), problem.message);
    $('ask-problem').hidden = false;
    $('ask-yes').disabled = false;
  }
}

$('ask-no').addEventListener('click', () => $('ask').close());
$('ask-yes').addEventListener('click', confirmed);
$('ask').addEventListener('close', () => {
  const r = rows.get(asking.name);
  // The button that asked may be gone: the other one stands in its place.
  const button = asking.from.hidden && r ? (r.drain.hidden ? r.resume : r.drain) : asking.from;
  button.focus();
});
$('find').addEventListener('input', filter);
$('troubled').addEventListener('change', filter);
$('live').addEventListener('click', () => {
  live = !live;
  $('live').setAttribute('aria-pressed', String(live));
  say($('live'), live ? 'Live' : 'Paused');
});

get('/v1/whoami').then((who) => {
  role = who.role;
  csrf = who.csrf_token || '';
}).catch(() => {}).finally(turn);
