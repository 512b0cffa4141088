// SPDX-License-Identifier: Apache-2.0
//
// What the pages of agent and server share. Texts that come from outside go into the page as text,
// never as HTML.
'use strict';

const PAGE = 4096;

function $(id) {
  return document.getElementById(id);
}

// An element with text and children.
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === 'class') element.className = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function setText(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

const formatCount = (n) => Math.round(n).toLocaleString('en-US');

function formatScaled(n, step, units) {
  let i = 0;
  while (Math.abs(n) >= step && i + 1 < units.length) {
    n /= step;
    ++i;
  }
  return (i === 0 && Number.isInteger(n) || n >= 100 ? n.toFixed(0) : n.toFixed(1)) + units[i];
}
const formatBytes = (n) =>
    formatScaled(n, 1024, [' B', ' KiB', ' MiB', ' GiB', ' TiB', ' PiB']);
const formatRate = (n) => formatScaled(n, 1000, ['/s', 'k/s', 'M/s']);

function formatSeconds(s) {
  if (s === null || s === undefined || Number.isNaN(s)) return '–';
  if (s === 0) return '0';
  if (s < 1e-3) return (s * 1e6).toFixed(s < 1e-5 ? 1 : 0) + ' µs';
  if (s < 1) return (s * 1e3).toFixed(s < 1e-2 ? 1 : 0) + ' ms';
  if (s < 120) return s.toFixed(s < 10 ? 1 : 0) + ' s';
  return (s / 60).toFixed(0) + ' min';
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
}

// The 2d context of a canvas whose pixels are those of the screen; in units of CSS pixels.
function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = '12px system-ui, "DejaVu Sans", sans-serif';
  return {context, width, height};
}

// The least round number that is not below n: 1, 2 or 5 times a power of ten, or of two for bytes.
function roundUp(n, bytes) {
  if (n <= 0) return 1;
  if (bytes) return Math.pow(2, Math.ceil(Math.log2(n)));
  const power = Math.pow(10, Math.floor(Math.log10(n)));
  return [1, 2, 5, 10].find((m) => m * power >= n) * power;
}

// What stands above a chart: the colour and the name of each of `entries`.
function drawLegend(context, entries, left, soft) {
  let at = left;
  for (const entry of entries) {
    context.fillStyle = colour(entry.colour);
    context.fillRect(at, 4, 10, 10);
    context.fillStyle = soft;
    context.fillText(entry.name, at + 15, 13);
    at += 33 + context.measureText(entry.name).width;
  }
}

// Draws lines over time. series: [{name, colour, values}], the newest value last; at most `most`.
function drawLines(canvas, series, most, format, bytes) {
  const {context, width, height} = prepare(canvas);
  const left = 74, right = 8, top = 22, bottom = 20;
  const max = roundUp(Math.max(1, ...series.flatMap((one) => one.values)), bytes);
  const soft = colour('soft');
  context.strokeStyle = colour('line');
  context.fillStyle = soft;
  context.textAlign = 'right';
  context.textBaseline = 'middle';
  for (let i = 0; i <= 4; ++i) {
    const y = top + (height - top - bottom) * (1 - i / 4);
    context.beginPath();
    context.moveTo(left, y);
    context.lineTo(width - right, y);
    context.stroke();
    if (i % 2 === 0) context.fillText(format(max * i / 4), left - 6, y);
  }
  context.textBaseline = 'alphabetic';
  context.fillText('now', width - right, height - 5);
  context.textAlign = 'left';
  context.fillText('60 s ago', left, height - 5);
  drawLegend(context, series, left, soft);
  for (const one of series) {
    context.strokeStyle = colour(one.colour);
    context.lineWidth = 1.6;
    context.beginPath();
    one.values.forEach((value, i) => {
      const x = width - right - (one.values.length - 1 - i) / (most - 1) * (width - left - right);
      const y = top + (height - top - bottom) * (1 - value / max);
      if (i === 0) context.moveTo(x, y);
      else context.lineTo(x, y);
    });
    context.stroke();
    context.lineWidth = 1;
  }
}

// Draws how many were how long: bars for each bucket, of several kinds on top of each other, or
// `beside` each other where one is no part of the other.
// kinds: [{name, colour, counts}]; bounds: the upper ones of all buckets but the last, in seconds.
function drawHistogram(canvas, kinds, bounds, beside = false) {
  const {context, width, height} = prepare(canvas);
  const left = 10, right = 10, top = 22, bottom = 20;
  const soft = colour('soft');
  const heights = beside ? Math.max : (...counts) => counts.reduce((sum, n) => sum + n, 0);
  const totals = bounds.map((_, i) => heights(...kinds.map((kind) => kind.counts[i])));
  const max = Math.max(1, ...totals);
  let first = totals.findIndex((n) => n > 0);
  let last = totals.length - 1;
  while (last > 0 && totals[last] === 0) --last;
  if (first < 0) [first, last] = [0, 12];
  first = Math.max(0, Math.min(first - 1, 4));
  last = Math.min(bounds.length - 1, Math.max(last + 1, first + 12));
  const step = (width - left - right) / (last - first + 1);
  context.fillStyle = soft;
  context.textAlign = 'center';
  for (let i = first; i <= last; ++i) {
    let y = height - bottom;
    const x = left + (i - first) * step;
    const wide = beside ? (step - 2) / kinds.length : step - 2;
    kinds.forEach((kind, k) => {
      const share = kind.counts[i] / max * (height - top - bottom);
      const bar = kind.counts[i] > 0 ? Math.max(share, 1) : 0;
      context.fillStyle = colour(kind.colour);
      context.fillRect(x + 1 + (beside ? k * wide : 0), y - bar, wide, bar);
      if (!beside) y -= bar;
    });
    context.fillStyle = soft;
    // Each third bound: a factor of eight.
    if ((i - first) % 3 === 2 && i < last) context.fillText(formatSeconds(bounds[i]), x + step, height - 5);
  }
  context.strokeStyle = colour('line');
  context.strokeRect(left, top - 0.5, width - left - right, height - top - bottom);
  context.textAlign = 'left';
  drawLegend(context, kinds, left, soft);
}

// The latency that `fraction` of what `counts` have counted does not exceed, in seconds; buckets
// are taken to be evenly filled on the logarithmic scale. Null where there is none.
function quantile(counts, bounds, fraction) {
  const total = counts.reduce((sum, n) => sum + n, 0);
  if (total === 0) return null;
  let rank = fraction * total;
  for (let i = 0; i < counts.length; ++i) {
    if (counts[i] > 0 && rank <= counts[i]) {
      const upper = i < bounds.length ? bounds[i] : bounds[bounds.length - 1] * 2;
      return upper / 2 * Math.pow(2, rank / counts[i]);
    }
    rank -= counts[i];
  }
  return null;
}

const addCounts = (lists) => lists[0].map((_, i) => lists.reduce((sum, one) => sum + one[i], 0));
const subtractCounts = (from, what) => from.map((n, i) => Math.max(0, n - what[i]));

// The last values of a number, for a chart.
class History {
  constructor(most) {
    this.most = most;
    this.values = [];
  }
  add(value) {
    this.values.push(value);
    if (this.values.length > this.most) this.values.shift();
  }
}

async function getJson(path) {
  const answer = await fetch(path, {cache: 'no-store'});
  const json = await answer.json();
  if (!answer.ok) {
    const error = new Error(json.error || answer.statusText);
    error.status = answer.status;
    throw error;
  }
  return json;
}

// Calls `look` every `interval` ms while the page is seen, one call at a time; shows its errors.
function repeat(look, interval, who) {
  const round = async () => {
    if (document.visibilityState === 'visible') {
      try {
        await look();
        $('trouble').className = 'card';
      } catch (error) {
        $('trouble').className = 'card shown';
        setText('trouble', `The ${who} does not answer (${error.message}); trying again.`);
      }
    }
    setTimeout(round, interval);
  };
  round();
}
