/** Owns the page as a whole: what comes from the daemon becomes the next state, and once a frame the views show it. */

import { nothingKnown, after } from './daemon/state.js';
import { Phase, Updates } from './daemon/updates.js';
import { Tabs } from './daemon/tabs.js';
import { token } from './daemon/token.js';
import { openAction } from './operations/dialog.js';
import { DaemonClock, Ticker } from './ticker.js';
import { aliasesView } from './views/aliases.js';
import { Banner, outdated, problemsView, summaryView } from './views/banner.js';
import { callsView } from './views/calls.js';
import { functionsView } from './views/functions.js';
import { mappingsView } from './views/mappings.js';
import { operationsView } from './views/operations.js';
import { openRecords } from './views/records.js';
import { callerLine, openSignIn } from './views/sign_in.js';
import { workersView } from './views/workers.js';
import { forgetViews, setText } from './elements.js';

const NOTICE_MS = 10_000;
const WRONG_TOKEN = 'The daemon does not know this token.';

const byId = (id) => document.getElementById(id);

class Page {
  #state = nothingKnown();
  #clock = new DaemonClock();
  #ticker = new Ticker();
  #find = byId('find');
  #drawing = false;
  #noticeEnds = null;
  /** Which files of the page the daemon had when this one was loaded. */
  #version = null;
  #updates = new Updates({
    onEvent: (name, value) => this.#heard(name, value),
    onDate: (epoch) => this.#clock.heard(epoch),
    onPhase: (phase, facts) => this.#connection(phase, facts),
    onBegin: () => this.#tabs.begin(),
  });
  #tabs = new Tabs(() => this.#updates.standAside());
  #banner = new Banner({ ticker: this.#ticker, again: () => this.#updates.again() });
  #views;

  constructor() {
    const context = {
      clock: this.#clock,
      ticker: this.#ticker,
      caller: () => this.#state.caller,
      mapping: (id) => this.#state.mappings.get(id),
      notify: (text) => this.#notify(text),
      act: (name, target) => openAction(name, target, context),
      showRecords: openRecords,
    };
    this.#views = {
      summary: summaryView(),
      problems: problemsView(byId('problems')),
      running: operationsView(context, byId('running')),
      mappings: mappingsView(context, byId('mappings')),
      functions: functionsView(context, byId('functions')),
      aliases: aliasesView(context, byId('aliases')),
      calls: callsView(context, byId('calls')),
      workers: workersView(context, byId('workers')),
      ended: operationsView(context, byId('ended')),
    };
  }

  start() {
    this.#find.addEventListener('input', () => this.#redraw());
    byId('sign-in').addEventListener('click', () => this.#signIn());
    byId('reload').addEventListener('click', () => location.reload());
    window.addEventListener('online', () => this.#updates.again());
    window.addEventListener('focus', () => this.#updates.lookedAt());
    window.addEventListener('pagehide', () => this.#tabs.end());
    window.addEventListener('pageshow', (event) => event.persisted && this.#updates.again());
    document.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible') this.#updates.lookedAt();
    });
    this.#ticker.start();
    this.#updates.run();
  }

  #heard(name, value) {
    this.#banner.heard();
    const before = this.#state.caller;
    if (name === 'caller') this.#checkVersion(value.page);
    if (name === 'history' || name === 'point') this.#clock.heard(value.now);
    this.#state = this.#after(name, value);
    if (name === 'caller' && !sameCaller(before, value)) this.#showCaller();
    this.#redraw();
  }

  /** The state after an event. One that is not understood comes from a daemon of another version. */
  #after(name, value) {
    try {
      return after(this.#state, name, value);
    } catch (error) {
      outdated();
      throw error;
    }
  }

  #checkVersion(version) {
    this.#version ??= version;
    if (version !== this.#version) outdated();
  }

  /** Which buttons there are depends on the caller, so all is made again for another one. */
  #showCaller() {
    callerLine(byId('caller'), this.#state.caller);
    for (const section of ['running', 'mappings', 'functions', 'aliases', 'calls', 'workers', 'ended']) {
      forgetViews(byId(section).querySelector('ul'));
    }
  }

  #connection(phase, facts) {
    this.#banner.phase(phase, facts);
    if (phase === Phase.TOKEN && !document.querySelector('dialog')) this.#signIn(token() ? WRONG_TOKEN : '');
  }

  #signIn(why = '') {
    openSignIn(() => this.#updates.again(), why);
  }

  #notify(text) {
    clearTimeout(this.#noticeEnds);
    setText(byId('notice'), text);
    this.#noticeEnds = setTimeout(() => setText(byId('notice'), ''), NOTICE_MS);
  }

  #redraw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#draw();
    });
  }

  #draw() {
    const { status, mappings, open, ended, aliases } = this.#state;
    const views = this.#views;
    drawn(() => views.summary(this.#state));
    drawn(() => views.problems(status));
    drawn(() => views.running(open, mappings));
    drawn(() => views.mappings(this.#state, this.#find.value.trim()));
    drawn(() => views.functions(status));
    drawn(() => views.aliases(aliases));
    drawn(() => views.calls(status));
    drawn(() => views.workers(this.#state));
    drawn(() => views.ended(ended, mappings));
  }
}

/** Draws a view. One that cannot show what came must not keep others from theirs, nor be taken for up to date. */
function drawn(draw) {
  try {
    draw();
  } catch (error) {
    outdated();
    reportError(error);
  }
}

function sameCaller(one, other) {
  return one !== null && one.name === other.name && one.role === other.role && one.writes === other.writes;
}

new Page().start();
