// The dashboard in Debian's chromium, over the testbed: every page, live, by hand, by keyboard, in the dark, on a phone.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { world } from '../viewers/world.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const shots = process.env.SHOTS;
const PAGES = ['/', '/broken', '/broken?kind=unknown', '/collections', '/collections?source=1', '/collections/1', '/heals', '/heals/1', '/search', '/search?q=obj', '/search?q=Page', '/search?q=nobody', '/setup', '/nothing'];

let it;
let origin;

before(async () => {
  // A second source, within the first one: the same manifest, read from two places.
  const config = 'ladder = ["visit", "rebuild"]\n[[index.sources]]\npath = "manifests/obj_single.json"';
  it = await world('another name', ['--book', 'obj/minutes:60', '--pdf', 'obj/report:3', '--single', 'obj/single'], { config });
  origin = `http://${it.mender.admin}`;
});
after(() => it?.ends());

/** A page that fails the test when the policy stops anything, or a script throws. */
async function opened(path, options = {}, at = origin) {
  const context = await it.browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.wrong = [];
  page.on('pageerror', (error) => page.wrong.push(String(error)));
  page.on('console', (message) => {
    if (/Content Security Policy|Refused to/.test(message.text())) page.wrong.push(message.text());
  });
  await page.goto(at + path);
  return page;
}

async function closed(page) {
  assert.deepEqual(page.wrong, []);
  await page.context().close();
}

async function api(path, options) {
  const answer = await fetch(origin + path, options);
  return answer.json();
}

test('an expiry and its heal appear without a reload', async () => {
  const page = await opened('/');
  await page.getByText('No heal is recorded yet').waitFor();
  await it.bedDoes('expire');
  const { pages } = await it.state();
  const seen = await fetch(`http://${it.mender.address}/iiif/2/${pages[0].identifier}/full/200,/0/default.jpg`);
  assert.equal(seen.status, 200);
  await page.locator('tbody .state.healed').first().waitFor({ timeout: 20_000 });
  await closed(page);
});

test('a page is healed with a button, and its heal has a timeline', async () => {
  await it.bedDoes('expire');
  const page = await opened('/collections/1');
  const card = page.locator('.wall li').nth(1);
  await card.locator('.state.expired').waitFor();
  await card.getByRole('button').click();
  await card.locator('.state.healed, .state.ok').waitFor({ timeout: 20_000 });
  await card.locator('img').waitFor();
  assert.ok(await card.locator('img').evaluate((image) => image.decode().then(() => image.naturalWidth > 0)));
  const key = await card.getAttribute('data-key');
  let heal;
  while (!heal) [heal] = (await api(`/api/v1/heals?identifier=${encodeURIComponent(key)}`)).items;
  await page.goto(`${origin}/heals/${heal.id}`);
  await page.locator('.steps li').first().waitFor();
  assert.match(await page.locator('main').innerText(), new RegExp(heal.request));
  await closed(page);
});

test('without scripts a page is healed, too', async () => {
  await it.bedDoes('expire');
  const page = await opened('/collections/1', { javaScriptEnabled: false });
  await page.locator('.wall li').nth(2).getByRole('button').click();
  await page.waitForURL('**/collections/1');
  assert.match(await page.locator('.wall li').nth(2).innerText(), /healed|ok/);
  await page.context().close();
});

test('long manifests and long histories come page by page', async () => {
  const page = await opened('/collections/1');
  assert.equal(await page.locator('.wall li').count(), 50);
  await page.getByRole('link', { name: 'More pages' }).click();
  await page.waitForURL('**after=*');
  assert.equal(await page.locator('.wall li').count(), 10);
  await page.goto(`${origin}/heals?limit=1&verdict=healed`);
  const first = await page.locator('tbody a').getAttribute('href');
  await page.getByRole('link', { name: 'Older heals' }).click();
  assert.notEqual(await page.locator('tbody a').getAttribute('href'), first);
  assert.match(page.url(), /verdict=healed/);
  await closed(page);
});

test('collections lead to manifests, and manifests to pages', async () => {
  const page = await opened('/collections');
  assert.equal(await page.locator('.volumes li').count(), 2);
  await page.getByRole('link', { name: 'obj_single.json' }).click();
  await page.waitForURL('**source=*');
  assert.equal(await page.locator('.volumes li').count(), 1);
  await page.locator('.volumes a').click();
  await page.locator('.wall li').first().waitFor();
  await page.goBack();
  await page.getByRole('link', { name: 'All collections' }).click();
  await page.waitForURL('**/collections');
  await page.locator('.volumes a').first().click();
  await page.waitForURL('**source=*');
  assert.equal(await page.locator('.volumes li').count(), 3);
  await closed(page);
});

test('a poisoned page is shown as such, and cured with its button', async () => {
  const { pages } = await it.state();
  await it.bedDoes('expire');
  await it.bedDoes('poison-nested', '503');
  const seen = await fetch(`http://${it.mender.address}/iiif/2/${pages[5].identifier}/full/200,/0/default.jpg`);
  assert.equal(seen.status, 200);
  const page = await opened('/collections/1');
  const card = page.locator(`.wall li[data-key="${pages[5].identifier}"]`);
  for (let looks = 0; looks < 50 && await card.locator('.state.poisoned').count() === 0; looks += 1) await page.reload();
  assert.equal(await card.locator('.state.poisoned').count(), 1);
  if (shots) await page.screenshot({ path: join(shots, 'poisoned.png') });
  await it.bedDoes('nested-is-well');
  await card.getByRole('button').click();
  await card.locator('.state.healed, .state.ok').waitFor({ timeout: 20_000 });
  await closed(page);
});

test('an image is found by its URL', async () => {
  const { pages } = await it.state();
  const page = await opened('/');
  await page.getByRole('searchbox').fill(`https://api.library.tamu.edu/iiif/2/${pages[3].identifier}/info.json`);
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Heal this image' }).waitFor();
  await closed(page);
});

test('what readers do not get is told with its reason, and leaves when it is well', async () => {
  const { pages } = await it.state();
  const [lost, gone] = [pages[7], pages[9]];
  const asks = (identifier, size, headers = {}) => fetch(`http://${it.mender.address}/iiif/2/${identifier}/full/${size},/0/default.jpg`, { headers });
  await it.bedDoes('remove-file', lost.path);
  await it.bedDoes('remove-file', gone.path);
  assert.equal((await asks(lost.identifier, 90)).status, 404);
  assert.equal((await asks(gone.identifier, 90)).status, 404);
  for (let times = 0; times < 3; times += 1) {
    await asks('a-name-that-no-manifest-has-'.repeat(6), 90, { referer: 'https://blog.example/2026/a-post-about-letters/' });
    await asks('"><script>alert(1)</script>', 90, { referer: 'https://blog.example/<script>' });
  }
  const page = await opened('/broken');
  const card = page.locator(`.broken > li[data-key="${lost.identifier}"]`);
  assert.match(await card.innerText(), /file is gone[^]*Page 8[^]*1 reader/);
  assert.match(await page.locator('main').innerText(), /blog\.example\/2026/);
  await it.bedDoes('restore-file', lost.path);
  await card.getByRole('button', { name: /^Forget/ }).click();
  await page.waitForURL('**/broken');
  await page.locator(`.broken > li[data-key="${lost.identifier}"]`).getByRole('button', { name: /^Heal/ }).click();
  await page.locator(`.broken > li[data-key="${lost.identifier}"] .state`).filter({ hasText: /healed|ok/ }).waitFor({ timeout: 20_000 });
  await page.reload();
  assert.equal(await page.locator(`.broken > li[data-key="${lost.identifier}"]`).count(), 0);
  assert.equal(await page.locator(`.broken > li[data-key="${gone.identifier}"]`).count(), 1);
  await closed(page);
});

/** Looks at these pages on a desk and on a phone, light and dark: none is too wide, and axe finds nothing wrong with any. */
async function looksAt(paths, at = origin, name = '') {
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [1280, 390]) {
      for (const path of paths) {
        const page = await opened(path, { colorScheme, viewport: { width, height: 844 }, bypassCSP: false }, at);
        if (path.startsWith('/collections/')) await page.locator('.wall li').first().waitFor();
        const wide = await page.evaluate(() => Math.max(document.documentElement.scrollWidth - innerWidth,
          ...[...document.querySelectorAll('.wide')].map((table) => table.scrollWidth - table.clientWidth)));
        assert.ok(wide <= 0, `${path} is ${wide} px too wide at ${width}`);
        if (shots) {
          mkdirSync(shots, { recursive: true });
          await page.screenshot({ path: join(shots, `${name}${path.replace(/\W+/g, '_')}-${width}-${colorScheme}.png`), fullPage: true });
        }
        await page.evaluate(`${axe}`);
        const found = await page.evaluate(() => axe.run());
        assert.deepEqual(found.violations.map((one) => `${path} ${one.id}: ${one.nodes[0].html}`), []);
        await closed(page);
      }
    }
  }
}

test('every page is one that axe finds nothing wrong with', () => looksAt(PAGES));

test('what is wrong stands on the page: the setup, a service that only fails, images that readers miss', async () => {
  const config = 'breaker_failures = 2\nbreaker_open = "1h"\n[[index.sources]]\npath = "nothing-here"';
  const sick = await world('another name', ['--book', 'obj/minutes:12'], { config });
  try {
    const at = `http://${sick.mender.admin}`;
    const asks = (name, headers = {}) => fetch(`http://${sick.mender.address}/iiif/2/${name}/full/90,/0/default.jpg`, { headers });
    const { pages } = await sick.state();
    await sick.bedDoes('remove-file', pages[0].path);
    assert.equal((await asks(pages[0].identifier)).status, 404);
    await asks('a-name-that-no-manifest-has-'.repeat(6), { referer: `https://blog.example/${'a-post-about-letters/'.repeat(8)}` });
    await sick.bedDoes('canvas-fails', '503');
    await sick.bedDoes('expire');
    for (const page of pages.slice(4, 8)) assert.notEqual((await asks(page.identifier)).status, 200);
    await looksAt(['/', '/broken', '/heals', '/setup', '/collections/1'], at, 'wrong');
    const page = await opened('/', {}, at);
    const main = await page.locator('main').innerText();
    assert.match(main, /only fails since[^]*The setup needs a look[^]*nothing-here/);
    await sick.bedDoes('canvas-is-well');
    await page.getByRole('button', { name: 'Try it at once' }).click();
    await page.getByText('only fails since').waitFor({ state: 'detached', timeout: 20_000 });
    assert.equal((await asks(pages[9].identifier)).status, 200);
    await closed(page);
  } finally {
    await sick.ends();
  }
});

test('a wrong token opens nothing, and the right one opens everything', async () => {
  const token = 'a-token-for-browsers';
  const guarded = await world('another name', ['--single', 'obj/single'], { token });
  try {
    for (const [password, status] of [['wrong-wrong-wrong-wrong', 401], [token, 200]]) {
      const httpCredentials = { username: 'operator', password };
      const context = await guarded.browser.newContext({ httpCredentials });
      const page = await context.newPage();
      const answer = await page.goto(`http://${guarded.mender.admin}/`);
      assert.equal(answer.status(), status);
      assert.equal(await page.getByText('The last half hour').count(), status === 200 ? 1 : 0);
      await context.close();
    }
  } finally {
    await guarded.ends();
  }
});

test('the first thing that Tab reaches skips to the content', async () => {
  const page = await opened('/heals');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to content');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
  await closed(page);
});
