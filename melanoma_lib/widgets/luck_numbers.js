/* LuckExplorer's arithmetic: the same formulas as luck_state, in the same order. */

const Z95 = 1.959963984540054, Z_POWER = 2.801585218106783, FINE = 0.02, MOST = 1e7;
const horner = (coefficients, x) => coefficients.reduce((sum, c) => sum * x + c, 0);
const ABOVE = [3.52624965998911e-2, 0.700383064443688, 6.37396220353165, 33.912866078383, 112.079291497871, 221.213596169931, 220.206867912376];
const BELOW = [8.83883476483184e-2, 1.75566716318264, 16.064177579207, 86.7807322029461, 296.564248779674, 637.333633378831, 793.826512519948, 440.413735824752];

/** Share of a standard normal below x (Hart 1968, as West 2005 writes it; 15 digits near the middle). */
function below(x) {
  const size = Math.abs(x);
  let tail = 0;
  if (size < 7.07106781186547) tail = (Math.exp((-size * size) / 2) * horner(ABOVE, size)) / horner(BELOW, size);
  else if (size < 37) tail = Math.exp((-size * size) / 2) / (size + 1 / (size + 2 / (size + 3 / (size + 4 / (size + 0.65))))) / 2.506628274631;
  return x > 0 ? 1 - tail : tail;
}

/** Sum over a grid of x with the normal density, by the trapezoid rule. */
function overNormal(f) {
  let sum = 0;
  for (let i = 0; i <= 720; i++) {
    const x = -9 + i * 0.025;
    sum += (Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI)) * f(x);
  }
  return sum * 0.025;
}

const known = new Map(); // the page asks for the same few AUROCs again and again
function pairs(auroc) {
  if (!known.has(auroc)) {
    let [low, high] = [-1, 12]; // the shift between two normals that gives this AUROC
    for (let i = 0; i < 60; i++) {
      const middle = (low + high) / 2;
      if (below(middle / Math.SQRT2) < auroc) low = middle;
      else high = middle;
    }
    known.set(auroc, overNormal((x) => below(x + low) ** 2) - auroc * auroc);
  }
  return known.get(auroc);
}

function aurocError(auroc, melanomas, others) {
  return Math.sqrt((auroc * (1 - auroc) + (melanomas + others - 2) * pairs(auroc)) / (melanomas * others));
}

function gapError(auroc, gap, alike, melanomas, others) {
  const [better, worse] = [aurocError(auroc, melanomas, others), aurocError(auroc - gap, melanomas, others)];
  return Math.sqrt(better * better + worse * worse - 2 * alike * better * worse);
}

function melanomasFor(halfWidth, auroc, ratio) {
  const wanted = ratio * (halfWidth / Z95) ** 2, linear = (1 + ratio) * pairs(auroc), constant = auroc * (1 - auroc) - 2 * pairs(auroc);
  return Math.ceil((linear + Math.sqrt(linear * linear + 4 * wanted * constant)) / (2 * wanted));
}

function melanomasToFind(auroc, gap, alike, ratio) {
  const enough = (m) => gap >= Z_POWER * gapError(auroc, gap, alike, m, m * ratio);
  let low = Math.ceil(Math.max(1, 1 / ratio)), high = MOST;
  if (!enough(high)) return Infinity;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (enough(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

const expectedMaximum = (n) => overNormal((x) => x * n * below(x) ** (n - 1));

/** Everything the page says of one test set and two models. */
function luckAt({ melanomas, ratio, auroc, gap, alike, tries }) {
  const others = melanomas * ratio, error = aurocError(auroc, melanomas, others), between = gapError(auroc, gap, alike, melanomas, others);
  return {
    error, half_width: Z95 * error, gap_error: between, wrong: below(-gap / between),
    power: below(gap / between - Z95) + below(-gap / between - Z95), best: Math.min(1, auroc + error * expectedMaximum(tries)),
    fine: melanomasFor(FINE, auroc, ratio), found: melanomasToFind(auroc, gap, alike, ratio),
  };
}
