/* LayerExplorer's risks: what the model answers for every age, sex and site, all else of the case being equal. */

const GREEN = "var(--mk-green)";

/** A risk in words, with more digits where it is small. */
function riskWords(risk) {
  return `${(100 * risk).toFixed(risk < 0.1 ? 1 : 0)}%`;
}

/** Logits and risks of one case by age, sex and site; null stands for "not known". */
function answersOf(logits, { ages, sexes, sites, calibration: { slope, intercept } }) {
  const place = (age, sex, site) => (ages.indexOf(age) * sexes.length + sexes.indexOf(sex)) * sites.length + sites.indexOf(site);
  const logit = (age, sex, site) => logits.getFloat64(8 * place(age, sex, site), true);
  const risk = (...metadata) => 1 / (1 + Math.exp(-(slope * logit(...metadata) + intercept)));
  return { logit, risk };
}

/** The upper end of a scale of risks: a round number above all of them. */
function roundTop(risk) {
  return [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1].find((top) => risk <= 0.97 * top) ?? 1;
}

function scaleOf(answers, facts) {
  let most = facts.threshold.risk;
  for (const age of facts.ages) for (const sex of facts.sexes) for (const site of facts.sites) most = Math.max(most, answers.risk(age, sex, site));
  return roundTop(most);
}

function agePlot(answers, facts, { age, sex, site }, recorded, top) {
  const years = facts.ages.filter((value) => value !== null), oldest = years.at(-1);
  const x = (value) => (value === null ? 0.03 : 0.12 + (0.86 * value) / oldest);
  const y = (value) => answers.risk(value, sex, site) / top;
  const now = answers.risk(age, sex, site), flagged = facts.threshold.risk / top;
  const mark = (value, at, more) => s("circle", { cx: across(x(value)), cy: up(at), r: 6, "stroke-width": 2, ...more });
  const rising = answers.risk(oldest, sex, site), start = answers.risk(years[0], sex, site);
  const label = `Risk by age with this sex and site: ${riskWords(start)} at ${years[0]} years, ${riskWords(rising)} at ${oldest}; ` +
    `${riskWords(now)} with the age chosen; flagged from ${riskWords(facts.threshold.risk)}`;
  const ticks = [[x(null), "?"], ...[0, 20, 40, 60, 80].map((value) => [x(value), String(value)])];
  const moved = sex !== recorded.sex || site !== recorded.site;
  const was = moved ? [curve(years.map(x), years.map((value) => answers.risk(value, recorded.sex, recorded.site) / top), EDGE, { "stroke-dasharray": "3 4" })] : [];
  return plot(
    { title: "risk by age", label, xlabel: "age, years; ? is not known", xs: ticks, ys: [0, 0.5, 1].map((share) => [share, riskTick(share * top)]) },
    curve([0, 1], [flagged, flagged], GREEN, { "stroke-width": 1.5, "stroke-dasharray": "7 4" }), ...was, curve(years.map(x), years.map(y), ACCENT),
    mark(null, y(null), { fill: PAPER, stroke: ACCENT, r: 4 }),
    mark(recorded.age, answers.risk(recorded.age, recorded.sex, recorded.site) / top, { fill: PAPER, stroke: "currentColor" }),
    mark(age, now / top, { fill: MELANOMA, stroke: PAPER }),
  );
}

function riskTick(risk) {
  return `${Number((100 * risk).toPrecision(2))}%`;
}

/** Risks with each sex and each site, the other two as they are: a row each. */
function choicePlot(answers, facts, { age, sex, site }, recorded, top) {
  const rows = [
    ...facts.sexes.map((value) => [value ?? "sex unknown", answers.risk(age, value, site), value === sex, value === recorded.sex]),
    null,
    ...facts.sites.map((value) => [value ?? "site unknown", answers.risk(age, sex, value), value === site, value === recorded.site]),
  ];
  const left = 108, right = 266, step = (BOTTOM - TOP) / rows.length, x = (risk) => left + ((right - left) * risk) / top;
  const marks = rows.flatMap((row, i) => {
    if (!row) return [];
    const [name, risk, chosen, own] = row, y = TOP + (i + 0.5) * step;
    return [
      text(left - 8, y + 4, name, "end", chosen ? { "font-weight": 700 } : {}),
      s("line", { x1: left, x2: x(risk), y1: y, y2: y, stroke: ACCENT, "stroke-width": 2 }),
      ...(own ? [s("circle", { cx: x(risk), cy: y, r: 7.5, fill: "none", stroke: "currentColor", "stroke-width": 1.6 })] : []),
      s("circle", { cx: x(risk), cy: y, r: chosen ? 5.5 : 4, fill: chosen ? MELANOMA : ACCENT }),
    ];
  });
  const flagged = x(facts.threshold.risk);
  const said = rows.filter(Boolean).map(([name, risk]) => `${name} ${riskWords(risk)}`).join(", ");
  return s("svg", { viewBox: "0 0 290 252", role: "img", "aria-label": `Risk by sex and site, the rest as chosen: ${said}` },
    ...[0, 0.5, 1].flatMap((share) => [
      s("line", { x1: x(share * top), x2: x(share * top), y1: TOP, y2: BOTTOM, stroke: "var(--mk-grid)" }),
      text(x(share * top), BOTTOM + 18, riskTick(share * top)),
    ]),
    s("line", { x1: flagged, x2: flagged, y1: TOP, y2: BOTTOM, stroke: GREEN, "stroke-width": 1.5, "stroke-dasharray": "7 4" }), ...marks,
    text(0, 18, "risk by sex and by site", "start", { "font-weight": 600, "font-size": 14 }), text((left + right) / 2, BOTTOM + 37, "risk, the rest as chosen"));
}
