/* ThresholdExplorer's arithmetic: the formulas of OperatingPoint and adjust_for_prevalence; net benefit as by Vickers and Elkin (2006). */

/** Counts as packed_counts wrote them. */
function unpackCounts(view) {
  const k = (view.byteLength - 8) / 16;
  const copy = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength); // typed arrays need aligned bytes
  return {
    thresholds: new Float64Array(copy, 0, k), tp: new Uint32Array(copy, 8 * k, k + 1), fp: new Uint32Array(copy, 12 * k + 4, k + 1),
  };
}

/** Number of thresholds below t: a score equal to t is positive. */
function rankOf(thresholds, t) {
  let [low, high] = [0, thresholds.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (thresholds[middle] < t) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Half to even, as Python rounds lesions. */
function roundEven(x) {
  const below = Math.floor(x), rest = x - below;
  if (rest !== 0.5) return Math.round(x);
  return below % 2 ? below + 1 : below;
}

function countsAt({ thresholds, tp, fp }, t) {
  const rank = rankOf(thresholds, t);
  return { tp: tp[rank], fp: fp[rank], tn: fp[0] - fp[rank], fn: tp[0] - tp[rank] };
}

const oddsOf = (share) => share / (1 - share);

/** Risk that an output stands for at another prevalence; inverse: outputOf. */
function riskAt(t, own, prevalence, calibration) {
  if (t <= 0 || t >= 1) return Number(t > 0);
  let odds = oddsOf(t);
  if (calibration) odds = Math.exp(Math.min(700, calibration.slope * Math.log(odds) + calibration.intercept));
  odds *= oddsOf(prevalence) / oddsOf(own);
  return odds / (1 + odds);
}

function outputOf(risk, own, prevalence, calibration) {
  let odds = (oddsOf(risk) * oddsOf(own)) / oddsOf(prevalence);
  if (calibration) odds = Math.exp((Math.log(odds) - calibration.intercept) / calibration.slope);
  return odds === Infinity ? 1 : odds / (1 + odds);
}

function netBenefit({ sensitivity, specificity, fp }, prevalence, risk) {
  return prevalence * sensitivity - (fp ? (1 - prevalence) * (1 - specificity) * oddsOf(risk) : 0);
}

function predictiveValues({ sensitivity, specificity }, prevalence) {
  const tp = sensitivity * prevalence, tn = specificity * (1 - prevalence);
  return { ppv: tp / (tp + (1 - specificity) * (1 - prevalence)), npv: tn / (tn + (1 - sensitivity) * prevalence) };
}

function lesionsOf({ sensitivity, specificity }, prevalence) {
  const melanomas = roundEven(1000 * prevalence);
  const tp = roundEven(melanomas * sensitivity), fp = roundEven((1000 - melanomas) * (1 - specificity));
  return { tp_per_1000: tp, fn_per_1000: melanomas - tp, fp_per_1000: fp, tn_per_1000: 1000 - melanomas - fp };
}

/** Everything the page says of one threshold at one prevalence. */
function stateAt(counts, t, prevalence, calibration) {
  const cells = countsAt(counts, t), { tp, fp, tn, fn } = cells;
  const n = tp + fp + tn + fn, own = (tp + fn) / n;
  const sensitivity = tp / (tp + fn), specificity = tn / (tn + fp);
  const rates = { sensitivity, specificity, fp };
  const risk = riskAt(t, own, prevalence, calibration);
  const { ppv, npv } = predictiveValues(rates, prevalence);
  const spread = Math.sqrt((tp + fp) * (tp + fn)) * Math.sqrt((tn + fn) * (tn + fp));
  return {
    ...cells, ...lesionsOf(rates, prevalence), sensitivity, specificity,
    balanced_accuracy: (sensitivity + specificity) / 2, youden: sensitivity + specificity - 1,
    lr_positive: sensitivity / (fp / (tn + fp)), lr_negative: fn / (tp + fn) / specificity,
    ppv, npv, biopsies_per_melanoma: 1 / ppv, risk, net_benefit: netBenefit(rates, prevalence, risk),
    f1: (2 * tp) / (2 * tp + fp + fn), accuracy: (tp + tn) / n, mcc: (tp * tn - fp * fn) / spread,
    case_ppv: tp / (tp + fp), // of these cases, where their precision-recall curve is drawn
  };
}

/** The score with the lowest expected cost a case, among equals the lowest; null if flagging nobody is cheaper. */
function cheapest({ thresholds, tp, fp }, fnCost, fpCost, prevalence) {
  const melanomas = tp[0], others = fp[0], last = thresholds.length;
  const cost = (k) => prevalence * (1 - tp[k] / melanomas) * fnCost + (1 - prevalence) * (fp[k] / others) * fpCost;
  let best = 0, lowest = cost(0);
  for (let k = 1; k < last; k++) {
    const value = cost(k);
    if (value < lowest) [best, lowest] = [k, value];
  }
  return cost(last) < lowest ? null : thresholds[best];
}

/** Wilson's 95% interval of k among n. */
function wilson(k, n) {
  const z = 1.959963984540054, p = k / n, middle = p + (z * z) / (2 * n), spread = z * Math.sqrt((p * (1 - p)) / n + (z / (2 * n)) ** 2);
  return [middle - spread, middle + spread].map((end) => end / (1 + (z * z) / n));
}

/** Numbers in words; a dash where one is undefined. */
const rate = (value, digits = 1) => (Number.isNaN(value) ? "–" : `${(100 * value).toFixed(digits)}%`);
const plain = (digits) => (value) =>
  (Number.isNaN(value) ? "–" : Number.isFinite(value) ? value.toFixed(digits) : value > 0 ? "∞" : "−∞");
