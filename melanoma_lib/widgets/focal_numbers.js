/* Focal loss, its slope and its decoder in the log domain, as in losses.py: finite at any logit. No page is needed. */

const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))); // ln(1 + e^x)
const logitOf = (output) => Math.log(output) - Math.log1p(-output);

function logAddExp(a, b) {
  const larger = Math.max(a, b);
  return larger === -Infinity ? larger : larger + Math.log1p(Math.exp(-Math.abs(a - b)));
}

/** ln((1-p)^g / p - g (1-p)^(g-1) ln p) from ln p and ln(1-p); both terms are positive. */
function logPull(gamma, logP, logMiss) {
  const first = gamma * logMiss - logP;
  return gamma === 0 ? first : logAddExp(first, Math.log(gamma) + (gamma - 1) * logMiss + Math.log(-logP));
}

/** Loss and its slope in the logit, of a melanoma and of another lesion, and the true risk that the output stands for. */
function focalAt(alpha, gamma, logit) {
  const logP = -softplus(-logit), logQ = -softplus(logit);
  const [positive, negative] = alpha === null ? [1, 1] : [alpha, 1 - alpha];
  const loss = (logPt, logMiss) => -logPt * Math.exp(gamma * logMiss);
  const steepness = (logPt, logMiss) => Math.exp(gamma * logMiss) * (Math.exp(logMiss) - gamma * Math.exp(logPt) * logPt);
  const logOdds = logPull(gamma, logQ, logP) - logPull(gamma, logP, logQ) + Math.log(negative / positive);
  return {
    losses: [positive * loss(logP, logQ), negative * loss(logQ, logP)],
    slopes: [-positive * steepness(logP, logQ), negative * steepness(logQ, logP)],
    risk: Math.exp(-softplus(-logOdds)),
  };
}
