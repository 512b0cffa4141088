// SPDX-License-Identifier: Apache-2.0
'use strict';

const INTERVAL_MS = 500;
const POINTS = 120;  // of a chart: a minute
const MOST_EVENTS = 200;
// How often two latencies of now are apart: so many looks.
const RECENT = 10;
const MOST_CELLS = 4096;

const STATES = ['absent', 'in-flight', 'staged', 'dirty', 'resident', 'zero', 'evicted', 'poisoned'];
// What must not drown among other pages of its cell.
const LOUD = new Set(['in-flight', 'dirty', 'poisoned']);
const CLASSES = [['demand', 'accent'], ['staged', 'staged'], ['zero', 'zero'],
                 ['deferred', 'in-flight']];
const EVENTS = ['fork', 'remap', 'remove', 'unmap'];

const NUMBERS = [
  ['faults_total', 'faults'],
  ['waiting_faults', 'pages waited for now'],
  ['fetched_pages_total', 'pages fetched'],
  ['copied_pages_total', 'pages filled'],
  ['zeroed_pages_total', 'filled with zeros'],
  ['prefetch_hits_total', 'prefetch hits'],
  ['fetch_retries_total', 'fetches tried again'],
  ['parked_fills', 'fills held off now'],
  ['poisoned_pages', 'poisoned pages'],
];
const FAR_NUMBERS = [
  ['evicted_pages_total', 'pages evicted'],
  ['written_pages_total', 'pages written'],
  ['unwritten_pages', 'dirty pages now'],
];

let chosen = null;      // the id of the attachment that is shown
let fresh = true;       // it was chosen just now
let view = {first: 0, count: null};
let map = null;         // as it was answered
let grid = {columns: 1, size: 8, gap: 1};
let lastSequence = 0;
let lastTime = null;
const before = new Map();  // what was counted at the last look, by id
let bounds = [];
let filled, fetched, written, latencies;

function choose(id) {
  if (chosen === id) return;
  chosen = id;
  fresh = true;
  view = {first: 0, count: null};
  map = null;
  lastSequence = 0;
  filled = new History(POINTS);
  fetched = new History(POINTS);
  written = new History(POINTS);
  latencies = new History(RECENT);
  $('events').replaceChildren();
}

// --- attachments ---------------------------------------------------------------------------------

function ratesOf(one, seconds) {
  const last = before.get(one.id);
  const rate = (name) => last && seconds > 0 ? Math.max(0, one[name] - last[name]) / seconds : 0;
  return {
    faults: rate('faults_total'),
    filled: (rate('copied_pages_total') + rate('zeroed_pages_total')) * PAGE,
    fetched: rate('fetched_pages_total') * PAGE,
    written: rate('written_pages_total') * PAGE,
  };
}

function residentPages(one) {
  return one.far ? one.resident_pages : one.present_pages;
}

function stateOf(one) {
  if (one.oldest_wait_seconds > 1) return [`waits for ${formatSeconds(one.oldest_wait_seconds)}`, 'bad'];
  if (one.draining) return ['drains', ''];
  if (one.drained) return ['drained', 'good'];
  if (one.far) return [`far, ${formatBytes(one.budget_pages * PAGE)} here`, ''];
  return ['', ''];
}

function showAttachments(state, rates) {
  const rows = state.attachments.map((one) => {
    const [word, tone] = stateOf(one);
    const rate = rates.get(one.id);
    const share = one.tracked_pages > 0 ? 100 * residentPages(one) / one.tracked_pages : 0;
    const row = make('tr', {class: 'choice' + (one.id === chosen ? ' chosen' : ''), tabindex: '0',
                            'data-id': String(one.id)},
        make('td', {}, String(one.id)),
        make('td', {}, one.parent ? String(one.parent) : ''),
        make('td', {}, one.pid ? String(one.pid) : '–'),
        make('td', {class: 'name', title: one.volume}, one.volume),
        make('td', {}, formatBytes(one.tracked_pages * PAGE)),
        make('td', {}, share.toFixed(1) + ' %'),
        make('td', {}, formatCount(one.faults_total)),
        make('td', {}, formatRate(rate.faults)),
        make('td', {}, formatBytes(rate.filled) + '/s'),
        make('td', {}, String(one.waiting_faults)),
        make('td', {class: 'name ' + tone}, word));
    return row;
  });
  const focused = document.activeElement && document.activeElement.dataset.id;
  $('attachments').replaceChildren(...rows);
  if (focused) {
    const row = rows.find((one) => one.dataset.id === focused);
    if (row) row.focus({preventScroll: true});
  }
  const hidden = state.attachments_live - state.attachments.length;
  setText('more', hidden > 0 ? `and ${hidden} more` :
      state.attachments.length === 0 ? 'Nothing is attached.' : '');
}

function chooseByEvent(event) {
  const row = event.target.closest('tr[data-id]');
  if (row && (event.type === 'click' || event.key === 'Enter')) choose(Number(row.dataset.id));
}

// --- one of them ---------------------------------------------------------------------------------

function showNumbers(one) {
  const wanted = one.far ? NUMBERS.concat(FAR_NUMBERS) : NUMBERS;
  const box = $('numbers');
  if (box.childElementCount !== wanted.length) {
    box.replaceChildren(...wanted.map(([name, text]) =>
        make('div', {}, make('b', {id: 'n-' + name}), make('span', {class: 'soft'}, text))));
  }
  for (const [name] of wanted) setText('n-' + name, formatCount(one[name]));
  setText('event-counts',
          EVENTS.map((name) => `${formatCount(one[name + '_events_total'])} ${name}`).join(' · '));
}

function showDrain(one) {
  const left = one.tracked_pages > 0 ? one.drain_left_pages / one.tracked_pages : 0;
  const share = one.drained ? 1 : one.draining ? Math.max(0, 1 - left) : 0;
  $('drain').value = share;
  let text = 'none';
  if (one.drained) {
    text = 'done';
  } else if (one.draining) {
    text = `${(100 * share).toFixed(1)} % there, ${formatBytes(one.drain_left_pages * PAGE)} left`;
    if (one.drain_left_seconds) text += `, for some ${formatSeconds(one.drain_left_seconds)}`;
  }
  setText('drain-text', text);
}

function showCharts(one, rate) {
  if (!fresh) {
    filled.add(rate.filled);
    fetched.add(rate.fetched);
    written.add(rate.written);
  }
  const lines = [{name: 'filled', colour: 'resident', values: filled.values},
                 {name: 'fetched', colour: 'accent', values: fetched.values}];
  if (one.far) lines.push({name: 'written', colour: 'dirty', values: written.values});
  drawLines($('throughput'), lines, POINTS, (n) => formatBytes(n) + '/s', true);
  setText('throughput-now', `${formatBytes(rate.filled)}/s filled, ${formatRate(rate.faults)} faults`);

  const all = addCounts(CLASSES.map(([name]) => one.fault_latency[name]));
  latencies.add(all);
  const recent = subtractCounts(all, latencies.values[0]);
  const p50 = quantile(recent, bounds, 0.5);
  const p99 = quantile(recent, bounds, 0.99);
  setText('latency-now', p50 === null ? 'no faults now' :
      `now p50 ${formatSeconds(p50)}, p99 ${formatSeconds(p99)}`);
  drawHistogram($('latency'), CLASSES.map(([name, colourName]) => (
      {name, colour: colourName, counts: one.fault_latency[name]})), bounds);
}

function showEvents(events) {
  const list = $('events');
  for (const event of events) {
    const when = new Date(event.time_ms).toISOString().slice(11, 23);
    const what = event.event === 'fork' ? '' :
        formatBytes(event.pages * PAGE) +
            (event.page === null ? '' : ` at page ${event.page} of the volume`);
    list.prepend(make('tr', {'data-sequence': String(event.sequence)},
        make('td', {class: 'soft'}, when), make('td', {}, event.event), make('td', {}, what)));
    lastSequence = event.sequence;
  }
  while (list.childElementCount > MOST_EVENTS) list.lastElementChild.remove();
}

// --- the map -------------------------------------------------------------------------------------

// As large cells as there is room for.
function layOut(pages) {
  const canvas = $('map');
  const {clientWidth: width, clientHeight: height} = canvas;
  for (const size of [24, 18, 12, 9, 8]) {
    const columns = Math.max(1, Math.floor(width / size));
    const rows = Math.max(1, Math.floor(height / size));
    grid = {columns, cells: Math.min(columns * rows, MOST_CELLS), size};
    if (pages !== null && columns * rows >= pages) break;
  }
}

function unpack(runs) {
  const cells = [];
  for (const run of runs) {
    const counts = new Array(STATES.length).fill(0);
    for (let i = 1; i < run.length; i += 2) counts[run[i]] = run[i + 1];
    for (let i = 0; i < run[0]; ++i) cells.push(counts);
  }
  return cells;
}

function toRgb(text) {
  const n = parseInt(text.slice(1), 16);
  return [n >> 16, n >> 8 & 255, n & 255];
}

function mix(counts, rgb) {
  const total = counts.reduce((sum, n) => sum + n, 0);
  const weights = counts.map((n, i) =>
      n === 0 ? 0 : LOUD.has(STATES[i]) ? Math.max(n / total, 0.6) : n / total);
  const sum = weights.reduce((a, b) => a + b, 0) || 1;
  return [0, 1, 2].map((c) => Math.round(
      weights.reduce((value, weight, i) => value + weight / sum * rgb[i][c], 0)));
}

function drawMap() {
  const {context} = prepare($('map'));
  if (map === null) return;
  const rgb = STATES.map((name) => toRgb(colour(name)));
  const {columns, size} = grid;
  const known = new Map();
  map.cells.forEach((counts, i) => {
    if (!known.has(counts)) known.set(counts, `rgb(${mix(counts, rgb).join()})`);
    context.fillStyle = known.get(counts);
    context.fillRect(i % columns * size, Math.floor(i / columns) * size, size - 1, size - 1);
  });
}

function showMap() {
  drawMap();
  const totals = STATES.map((_, i) => map.cells.reduce((sum, counts) => sum + counts[i], 0));
  const legend = $('legend');
  if (legend.childElementCount === 0) {
    legend.append(...STATES.map((name) => make('span', {},
        make('i', {class: 's-' + name}), name.replace('-', ' ') + ' ', make('b', {id: 'm-' + name}))));
  }
  STATES.forEach((name, i) => setText('m-' + name, formatCount(totals[i])));
  const end = map.first + map.count;
  setText('view', map.count === 0 ? 'no memory' :
      `pages ${formatCount(map.first)} to ${formatCount(end - 1)} of ${formatCount(map.total)} in ` +
      `${formatCount(map.regions_total)} regions, ` +
      (map.cell_pages === 1 ? 'one a cell' : `${formatCount(map.cell_pages)} a cell`) +
      (map.stride > 1 ? ', by a sample' : ''));
  $('whole').disabled = $('out').disabled = map.count === map.total;
  $('in').disabled = map.cell_pages === 1 && map.count <= 16;
  $('left').disabled = map.first === 0;
  $('right').disabled = end >= map.total;
}

async function look(id) {
  const asked = view;
  layOut(asked.count);
  const cells = grid.cells;
  let path = `api/attachments/${id}/map?first=${asked.first}&cells=${cells}`;
  if (asked.count !== null) path += `&count=${asked.count}`;
  const answer = await getJson(path);
  if (id !== chosen || asked !== view) return;
  if (answer.count === 0 && answer.total > 0) {  // it has shrunk
    view = {first: 0, count: null};
    return;
  }
  answer.cells = unpack(answer.cells);
  map = answer;
  layOut(Math.min(map.count, map.cells.length));
  showMap();
}

function show(first, count) {
  if (map === null) return;
  count = Math.max(16, Math.min(Math.round(count), map.total));
  first = Math.max(0, Math.min(Math.round(first), map.total - count));
  view = {first, count: count >= map.total ? null : count};
}

// The cell at a place of the canvas: its number, or -1.
function cellAt(event) {
  if (map === null) return -1;
  const column = Math.floor(event.offsetX / grid.size);
  const i = Math.floor(event.offsetY / grid.size) * grid.columns + column;
  return column < grid.columns && i < map.cells.length ? i : -1;
}

function describe(i) {
  const first = map.first + i * map.cell_pages;
  const counts = map.cells[i];
  const total = counts.reduce((sum, n) => sum + n, 0);
  const region = map.regions.findLast((one) => one.first <= first && first < one.first + one.count);
  const volume = region ? `, of the volume from page ${formatCount(region.volume_page + first - region.first)}` +
      (region.shared ? ' (shared memory)' : '') : '';
  const states = STATES.map((name, s) => [name, counts[s]]).filter(([, n]) => n > 0)
      .map(([name, n]) => total === 1 ? name : `${formatCount(n)} ${name}`).join(', ');
  const which = total === 1 ? `page ${formatCount(first)}` :
      `pages ${formatCount(first)} to ${formatCount(first + total - 1)}`;
  return `${which}${volume}: ${states.replace('in-flight', 'in flight')}`;
}

function listen() {
  for (const type of ['click', 'keydown']) $('attachments').addEventListener(type, chooseByEvent);
  $('map').addEventListener('click', (event) => {
    const i = cellAt(event);
    if (i < 0 || (map.cell_pages === 1 && map.count <= 16)) return;
    const count = map.count / 16;
    show(map.first + (i + 0.5) * map.cell_pages - count / 2, count);
  });
  $('map').addEventListener('mousemove', (event) => {
    const i = cellAt(event);
    if (i >= 0) setText('cell', describe(i));
  });
  const move = (by) => () => map && show(map.first + by * map.count, map.count);
  const zoom = (by) => () =>
      map && show(map.first + map.count / 2 * (1 - by), map.count * by);
  const actions = {whole: () => { view = {first: 0, count: null}; }, in: zoom(1 / 4), out: zoom(4),
                   left: move(-0.5), right: move(0.5)};
  for (const [id, action] of Object.entries(actions)) $(id).addEventListener('click', action);
  const keys = {'+': 'in', '-': 'out', ArrowLeft: 'left', ArrowRight: 'right', Home: 'whole'};
  $('map').addEventListener('keydown', (event) => {
    if (event.key in keys) actions[keys[event.key]]();
  });
  window.addEventListener('resize', drawMap);
}

// --- all of it -----------------------------------------------------------------------------------

function showNone() {
  setText('chosen', '–');
  for (const id of ['view', 'throughput-now', 'latency-now', 'event-counts']) setText(id, '');
  map = null;
  drawMap();
}

async function update() {
  const state = await getJson('api/agent');
  bounds = state.bounds_seconds;
  const seconds = lastTime === null ? 0 : (state.time_ms - lastTime) / 1000;
  const isNew = state.time_ms !== lastTime;  // it is not answered anew for each who asks
  const rates = new Map(state.attachments.map((one) => [one.id, ratesOf(one, seconds)]));
  if (!state.attachments.some((one) => one.id === chosen)) {
    // Children come and go; who was handed over is there for longer.
    const first = state.attachments.find((one) => !one.parent) || state.attachments[0];
    choose(first ? first.id : null);
  }
  setText('server-address', state.server.address);
  setText('server-state', state.server.connected ? 'connected' : 'not connected');
  $('server-state').className = state.server.connected ? 'good' : 'bad';
  setText('attachments-live', formatCount(state.attachments_live));
  setText('attachments-total', formatCount(state.attachments_total));
  setText('version', 'version ' + state.version);
  if (isNew) {
    showAttachments(state, rates);
    const one = state.attachments.find((each) => each.id === chosen);
    if (one) {
      setText('chosen', `${one.id}, volume ${one.volume}`);
      showNumbers(one);
      showDrain(one);
      showCharts(one, rates.get(one.id));
      fresh = false;
    }
    before.clear();
    for (const each of state.attachments) before.set(each.id, each);
    lastTime = state.time_ms;
  }
  if (chosen === null) return showNone();
  const id = chosen;
  try {
    await look(id);
    const {events} = await getJson(`api/attachments/${id}/events?after=${lastSequence}`);
    if (id === chosen) showEvents(events);
  } catch (error) {
    if (error.status !== 404) throw error;  // it has ended just now
  }
}

listen();
repeat(update, INTERVAL_MS, 'agent');
