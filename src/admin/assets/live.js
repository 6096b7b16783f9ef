'use strict';
// The pages work without this. With it, Now renews itself and a heal shows its steps.

const live = document.querySelector('[data-live]');
if (live) {
  let due;
  const renew = async () => {
    due = undefined;
    const answer = await fetch('/now');
    // A table that is being read or scrolled with the keyboard is left alone.
    if (answer.ok && !live.contains(document.activeElement)) live.innerHTML = await answer.text();
  };
  // The history is written half a second behind a heal.
  const soon = () => { due ??= setTimeout(renew, 800); };
  const events = new EventSource('/api/v1/events');
  events.addEventListener('news', soon);
  events.addEventListener('stats', soon);
}

const says = (form, state, text) => {
  const card = form.closest('[data-state]');
  const place = (card ?? form).querySelector('[role=status]');
  const word = document.createElement('span');
  word.className = `state ${state}`;
  word.textContent = text ?? state;
  place.replaceChildren(word);
  if (card) card.dataset.state = state;
};

const picture = (card) => {
  const image = new Image(240, 240);
  image.alt = card.querySelector('.label').textContent;
  image.src = `/api/v1/images/${encodeURIComponent(card.dataset.key)}/thumbnail`;
  card.querySelector('.frame').replaceChildren(image);
};

const heal = async (form) => {
  const button = form.querySelector('button');
  const identifier = form.elements.identifier.value;
  button.disabled = true;
  says(form, 'healing', 'healing…');
  const events = new EventSource('/api/v1/events');
  events.addEventListener('news', ({ data }) => {
    const news = JSON.parse(data);
    if (news.event === 'heal_step' && news.identifier === identifier) says(form, 'healing', `${news.rung}: ${news.answer}`);
  });
  try {
    const answer = await fetch(form.action, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ identifier }),
    });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.detail);
    says(form, told.ending, told.reason ? `${told.ending}: ${told.reason}` : told.ending);
    const card = form.closest('[data-state]');
    if (card?.querySelector('.frame') && ['ok', 'healed'].includes(told.ending)) picture(card);
  } catch (error) {
    says(form, 'failed', String(error.message));
  } finally {
    events.close();
    button.disabled = false;
  }
};

document.addEventListener('submit', (event) => {
  if (!event.target.matches('form.act')) return;
  event.preventDefault();
  heal(event.target);
});

const all = document.querySelector('[data-heal-all]');
if (all) {
  const expired = () => [...document.querySelectorAll('.wall [data-state=expired] form')];
  all.hidden = expired().length === 0;
  all.addEventListener('click', async () => {
    all.disabled = true;
    for (const form of expired()) await heal(form);
    all.disabled = false;
    all.hidden = expired().length === 0;
  });
}
