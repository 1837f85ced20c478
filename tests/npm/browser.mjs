// Drives a Chromium for tests: takes one command a line from standard input, {"do", ...}, and answers each with a line, {"value"} or {"error"}.
//
// The page's own rules stay in force (Content-Security-Policy, Trusted Types). What a test evaluates goes past them, as in the browser's own tools.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

// So that a machine that is busy with other tests fails none of these.
const WAIT_MS_MAX = 60_000;
// No name is looked up, and nothing but this machine is reached.
const ARGS = [
  '--no-sandbox',
  '--disable-dev-shm-usage',
  '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1',
];
const axeSource = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

const browser = await chromium.launch({ executablePath: process.argv[2], args: ARGS });
let page = null;
let devtools = null;
// What the present page did that no page of ours may do.
let seen = [];

// Errors, warnings of the browser, dialogs, requests to anywhere else. A connection that is refused, and an answer that is no
// success, are for the page to cope with. A page that was left may still be heard: each has a list of its own.
function watched(fresh, origin) {
  const found = [];
  fresh.on('pageerror', (error) => found.push(`error: ${error.message}`));
  fresh.on('console', (message) => {
    const text = message.text();
    if (['error', 'warning'].includes(message.type()) && !text.startsWith('Failed to load resource')) {
      found.push(`console: ${text}`);
    }
  });
  fresh.on('dialog', (dialog) => {
    found.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  fresh.on('request', (request) => {
    if (new URL(request.url()).origin !== origin) found.push(`request: ${request.url()}`);
  });
  return found;
}

async function evaluate(expression) {
  const { result, exceptionDetails } = await devtools.send('Runtime.evaluate', {
    expression,
    awaitPromise: true,
    returnByValue: true,
  });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value ?? null;
}

// By role and accessible name, as people and screen readers find things; `within` narrows it down by a CSS selector.
function located({ role, name, label, css, within, text }) {
  const scope = within
    ? page
        .locator(within)
        .filter(text ? { hasText: text } : {})
        .first()
    : page;
  if (role) return scope.getByRole(role, name === undefined ? {} : { name, exact: true });
  if (label) return scope.getByLabel(label, { exact: true });
  return scope.locator(css);
}

const COMMANDS = {
  async open({ url, width, height, dark, javascript }) {
    const context = await browser.newContext({
      viewport: { width, height },
      colorScheme: dark ? 'dark' : 'light',
      reducedMotion: 'reduce',
      locale: 'en-GB',
      timezoneId: 'UTC',
      javaScriptEnabled: javascript,
    });
    page = await context.newPage();
    page.setDefaultTimeout(WAIT_MS_MAX);
    devtools = await context.newCDPSession(page);
    seen = watched(page, new URL(url).origin);
    const answer = await page.goto(url);
    return answer.status();
  },
  // Opens another tab of the same browser, with the same memory, which is the page from now on.
  async tab({ url }) {
    page = await page.context().newPage();
    page.setDefaultTimeout(WAIT_MS_MAX);
    devtools = await page.context().newCDPSession(page);
    await page.goto(url);
  },
  // Looks at another tab, by its number.
  async turn({ number, quietly }) {
    page = page.context().pages()[number];
    devtools = await page.context().newCDPSession(page);
    if (quietly) return;
    await page.bringToFront();
    await evaluate("window.dispatchEvent(new Event('focus'))");
  },
  click: (where) => located(where).first().click(),
  fill: ({ value, ...where }) => located(where).first().fill(value),
  check: (where) => located(where).first().check(),
  choose: ({ value, ...where }) => located(where).first().selectOption(value),
  press: ({ keys }) =>
    keys.reduce((before, key) => before.then(() => page.keyboard.press(key)), Promise.resolve()),
  type: ({ text }) => page.keyboard.type(text),
  wait: ({ gone, patience_ms: timeout, ...where }) =>
    located(where)
      .first()
      .waitFor({ state: gone ? 'hidden' : 'visible', timeout }),
  // Waits for a text that is seen.
  wait_text: ({ text, within, patience_ms: timeout }) =>
    page
      .locator(within ?? 'body')
      .getByText(text)
      .filter({ visible: true })
      .first()
      .waitFor({ timeout }),
  text: (where) => located(where).first().innerText(),
  texts: (where) => located(where).allInnerTexts(),
  count: (where) => located(where).filter({ visible: true }).count(),
  evaluate: ({ expression }) => evaluate(expression),
  wait_for: async ({ expression }) => {
    const until = Date.now() + WAIT_MS_MAX;
    while (!(await evaluate(expression))) {
      if (Date.now() > until) throw new Error(`did not come true: ${expression}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  },
  // The findings of axe-core: rule, impact and elements.
  async axe() {
    await evaluate(`${axeSource}; undefined`);
    const found = await evaluate(
      `axe.run(document, { runOnly: ${JSON.stringify(RULES)} }).then(({ violations }) => violations.map(({ id, impact, nodes }) => ` +
        '({ id, impact, nodes: nodes.map(({ html, failureSummary }) => `${html}: ${failureSummary}`) })))',
    );
    return found;
  },
  screenshot: async ({ path, css }) => {
    const target = css ? page.locator(css).first() : page;
    await target.screenshot({ path, animations: 'disabled' });
  },
  size: ({ width, height }) => page.setViewportSize({ width, height }),
  leave: () => page.context().close(),
  reload: async () => (await page.reload()).status(),
  seen: () => seen,
};

async function carryOut(line) {
  const { do: name, ...rest } = JSON.parse(line);
  try {
    return { value: (await COMMANDS[name](rest)) ?? null };
  } catch (error) {
    return { error: String(error.message ?? error) };
  }
}

process.stdout.write(`${JSON.stringify({ value: browser.version() })}\n`);
for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await carryOut(line))}\n`);
}
await browser.close();
