// SPDX-License-Identifier: Apache-2.0
'use strict';

const INTERVAL_MS = 500;
const POINTS = 120;  // of a chart: a minute
const RECENT = 10;   // looks between which latencies count as those of now

const NUMBERS = [
  ['pages_fetched_total', 'pages fetched'],
  ['pages_written_total', 'pages written'],
  ['requests_failed_total', 'requests failed'],
  ['fetch_streams', 'fetch streams now'],
  ['write_streams', 'write streams now'],
  ['pages_in_flight', 'pages in flight'],
];

let last = null;
const fetched = new History(POINTS);
const written = new History(POINTS);
const recent = {fetch: new History(RECENT), write: new History(RECENT)};

function showVolumes(state, seconds) {
  const before = new Map(last ? last.volumes.map((one) => [one.id, one]) : []);
  $('volumes').replaceChildren(...state.volumes.map((one) => {
    const then = before.get(one.id);
    const rate = (name) => then && seconds > 0 ?
        formatBytes((one[name] - then[name]) * PAGE / seconds) + '/s' : '';
    return make('tr', {},
        make('td', {class: 'name', title: one.name}, one.name),
        make('td', {class: 'name soft'},
             one.parent ? `${one.snapshot ? 'snapshot' : 'clone'} of ${one.parent}` : ''),
        make('td', {}, formatBytes(one.size_bytes)),
        make('td', {}, formatBytes(one.pages_fetched_total * PAGE)),
        make('td', {}, rate('pages_fetched_total')),
        make('td', {}, formatBytes(one.pages_written_total * PAGE)),
        make('td', {}, rate('pages_written_total')));
  }));
  const hidden = state.volumes_total - state.volumes.length;
  setText('more', state.volumes_total === 0 ? 'none' :
      `${formatCount(state.volumes_total)}, snapshots included` +
      (hidden > 0 ? `; ${formatCount(hidden)} are not shown` : ''));
}

function showNumbers(state) {
  const box = $('numbers');
  if (box.childElementCount === 0) {
    box.append(...NUMBERS.map(([name, text]) =>
        make('div', {}, make('b', {id: 'n-' + name}), make('span', {class: 'soft'}, text))));
  }
  for (const [name] of NUMBERS) setText('n-' + name, formatCount(state[name]));
  const {name, read_only, stored_bytes, free_bytes, capacity_bytes} = state.store;
  const used = capacity_bytes > 0 ? 1 - free_bytes / capacity_bytes : 0;
  $('store').value = used;
  setText('store-text', `${name}${read_only ? ' (read-only)' : ''}, ${formatBytes(stored_bytes)}` +
      (capacity_bytes > 0 ? `; its file system is ${(100 * used).toFixed(0)} % full, ` +
          `${formatBytes(free_bytes)} free` : ''));
}

function showLatency(kind, state) {
  const counts = state.latency[kind];
  recent[kind].add(counts);
  const now = subtractCounts(counts, recent[kind].values[0]);
  const bounds = state.bounds_seconds;
  const p50 = quantile(now, bounds, 0.5);
  setText(kind + '-now', p50 === null ? 'none now' :
      `now p50 ${formatSeconds(p50)}, p99 ${formatSeconds(quantile(now, bounds, 0.99))}`);
  const store = kind === 'fetch' ? 'store_read' : 'store_write';
  drawHistogram($(kind), [{name: kind === 'fetch' ? 'fetches' : 'writes', colour: 'accent', counts},
                          {name: 'of that, in the store', colour: 'staged', counts: state.latency[store]}],
                bounds, true);
}

async function update() {
  const state = await getJson('api/server');
  if (last && state.time_ms === last.time_ms) return;  // it is not answered anew for each who asks
  const seconds = last ? (state.time_ms - last.time_ms) / 1000 : 0;
  setText('addresses', state.addresses.join(', '));
  setText('version', 'version ' + state.version);
  showVolumes(state, seconds);
  showNumbers(state);
  if (last && seconds > 0) {
    const rate = (name) => Math.max(0, state[name] - last[name]) * PAGE / seconds;
    fetched.add(rate('pages_fetched_total'));
    written.add(rate('pages_written_total'));
    setText('throughput-now', `${formatBytes(fetched.values[fetched.values.length - 1])}/s fetched, ` +
        `${formatBytes(written.values[written.values.length - 1])}/s written`);
  }
  drawLines($('throughput'), [{name: 'fetched', colour: 'accent', values: fetched.values},
                              {name: 'written', colour: 'dirty', values: written.values}],
            POINTS, (n) => formatBytes(n) + '/s', true);
  showLatency('fetch', state);
  showLatency('write', state);
  last = state;
}

repeat(update, INTERVAL_MS, 'page server');
