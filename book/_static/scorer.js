// Ranks what the search finds: findings and how they were made first, then notebooks, then developers' pages and the API.
const RANKS = [
  [/^(api|architecture|speed)/, -200], [/^notebooks\//, -100], [/^(results|claims)$/, 10], [/^(intro|method|evaluation)$/, 5],
];
var Scorer = {
  score: ([page, , , , score]) => score + (RANKS.find(([names]) => names.test(page)) || [0, 0])[1],
  objNameMatch: 11, objPartialMatch: 6, objPrio: { 0: 15, 1: 5, 2: -5 }, objPrioDefault: 0, // these are Sphinx's own
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
