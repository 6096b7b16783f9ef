// How each viewer is opened, paged and zoomed: what differs between them, and nothing else.

/** The main picture: the first OpenSeadragon there is (the others are navigators). */
const openseadragon = (tab) => tab.locator('.openseadragon-container').first();

async function wheel(tab, picture) {
  const box = await picture.boundingBox();
  await tab.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  for (let turn = 0; turn < 6; turn++) {
    await tab.mouse.wheel(0, -300);
    await tab.waitForTimeout(60);
  }
}

const clicks = (selector) => (tab) => tab.locator(selector).first().click();

/**
 * `next` turns the page; `thumbnails` finds small pictures where the viewer shows any; `complains` are the viewer's own
 * troubles, which it has over any image server; `onlyByItsId`: it opens no manifest at another URL than its id.
 */
export const VIEWERS = [
  {
    name: 'openseadragon',
    picture: openseadragon,
    next: (tab) => tab.evaluate(() => viewer.goToPage(viewer.currentPage() + 1)),
    zoom: wheel,
  },
  {
    name: 'mirador',
    picture: openseadragon,
    next: clicks('.mirador-next-canvas-button'),
    zoom: wheel,
    thumbnails: '.mirador-thumbnail-nav-canvas img',
    complains: [/element\.ref was removed in React 19/],
  },
  {
    name: 'universalviewer',
    picture: (tab) => tab.locator('.centerPanel .openseadragon-container').first(),
    next: clicks('.paging.next'),
    zoom: wheel,
    thumbnails: '.thumb img',
    // It asks its own site for `images/data:image/gif…`.
    complains: [/images\/data:image/],
  },
  {
    name: 'clover',
    picture: openseadragon,
    onlyByItsId: true,
    async next(tab) {
      // The strip of pages under the picture; the chosen one is marked.
      const cards = tab.locator('[data-testid="media-group"] [role="radio"], button[role="radio"]');
      const at = await cards.evaluateAll((all) => all.findIndex((card) => card.getAttribute('aria-checked') === 'true'));
      await cards.nth(at + 1).click();
    },
    async zoom(tab) {
      for (let turn = 0; turn < 6; turn++) await tab.locator('button[title="Zoom in"]').first().click();
    },
    thumbnails: 'button[role="radio"] img',
  },
  {
    name: 'tify',
    picture: openseadragon,
    next: clicks('button[title="Next page"]'),
    zoom: wheel,
    thumbnails: '.tify-thumbnails-image',
  },
];
