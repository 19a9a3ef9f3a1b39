// SPDX-License-Identifier: MIT
// Coupling layers. Components of mixtures go to work-items of their own, (K, D, TILE); their parameters and values are recomputed on
// the way back.

typedef struct {
    real weight, mu, sigma, alpha, floor;
    real dMu, dSigma, dAlpha, dFloor;    // derivatives with respect to the raw parameters
    MixtureComponentEnds ends;
} FlowComponent;

// What mixtures are like. Where all of a model are alike, compilers know it.
#ifdef COMPONENTS
static DEVICE inline int numComponents(Stage stage) {
    return COMPONENTS;
}

static DEVICE inline int log2Components(Stage stage) {
    return LOG2_COMPONENTS;
}

static DEVICE inline int exponentOf(Stage stage) {
    return EXPONENT;
}

static DEVICE inline bool isPublished(Stage stage) {
    return IS_PUBLISHED;
}
#else
static DEVICE inline int numComponents(Stage stage) {
    return stage->components;
}

static DEVICE inline int log2Components(Stage stage) {
    return stage->log2Components;
}

static DEVICE inline int exponentOf(Stage stage) {
    return stage->exponent;
}

static DEVICE inline bool isPublished(Stage stage) {
    return stage->published;
}
#endif

#ifdef KEPT_IS_GLOBAL
// The parameters of a transformer, out of the way and back.
static DEVICE void keep(Stage stage, RealArena arena, KeptArena kept) {
    FOR_EACH(stage->numRaw)
        kept[stage->keptRow*TILE+item_] = arena[stage->rawRow*TILE+item_];
}

static DEVICE void recall(Stage stage, RealArena arena, KeptArena kept) {
    FOR_EACH(stage->numRaw)
        arena[stage->rawRow*TILE+item_] = kept[stage->keptRow*TILE+item_];
}
#endif

// Raw parameters of a softmax over components become its elements, in place: weights, and what centres of the published head are the
// cumulative sums of.
static DEVICE void softmax(Stage stage, RealArena arena) {
    const int D = stage->numIntervals+stage->numCircles, K = numComponents(stage);
    FOR_EACH(isPublished(stage) ? 2*D : D) {
        int i = ITEM_ROW, t = ITEM_MOLECULE;
        RealArena raw = &AT(arena, stage->rawRow+(i < D ? i : 2*K*D+i-D));
        const int next = D*TILE;
        real largest = raw[0];
        for (int k = 1; k < K; k++)
            largest = max(largest, raw[k*next]);
        real sum = 0;
        for (int k = 0; k < K; k++)
            sum += exp(raw[k*next]-largest);
        // Exponentials cost less than to store them in between.
        const real scale = (real) 1/sum;
        for (int k = 0; k < K; k++)
            raw[k*next] = exp(raw[k*next]-largest)*scale;
    }
}

// What centres of the published head are: the sum of the shares of components up to k, from the share of k.
static DEVICE inline real sumOfShares(RealArena share, int next, int k) {
    real sum = 0;
    for (int j = k; j >= 0; j--)
        sum += share[-j*next];
    return sum;
}

// Component k, from its row of w; `next` is from one component to the next, and those of the other parameters follow K components apart.
static DEVICE FlowComponent mixtureHead(Stage stage, Constants constants, RealArena raw, int next, int k, bool circular, real weight,
        real shares) {
    const int block = numComponents(stage)*next;
    Constants head = constants+stage->headConstant;
    const real bound = (real) head[2], floor0 = (real) head[3];
    const real prior = ((real) k+(real) 0.5)/(real) numComponents(stage);
    const real rawMu = raw[2*block], rawSigma = raw[3*block];
    HeadParameter mu, sigma;
    HeadParameter alpha = headLogistic(raw[block], (real) head[0], (real) head[1]);
    HeadParameter floorValue = headLogistic(raw[4*block], floor0, (real) 1-floor0);
    if (isPublished(stage)) {
        mu.value = shares;
        mu.d1 = (real) 1;
        if (circular) {
            sigma = headSteepnessOnCircle(-bound, bound);
            sigma.d1 = (real) 0;
        }
        else
            sigma = headSteepnessOnInterval(rawSigma, bound, (real) 1);
    }
    else if (circular) {
        mu = headCentreOnCircle(rawMu, prior);
        sigma = headSteepnessOnCircle(rawSigma, bound);
    }
    else {
        mu = headCentreOnInterval(rawMu, prior);
        sigma = headSteepnessOnInterval(rawSigma, bound, (real) 1/bound);
    }
    FlowComponent c;
    c.weight = weight;
    c.mu = mu.value;
    c.dMu = mu.d1;
    c.sigma = sigma.value;
    c.dSigma = sigma.d1;
    c.alpha = alpha.value;
    c.dAlpha = alpha.d1;
    c.floor = floorValue.value;
    c.dFloor = floorValue.d1;
    c.ends = mixtureComponentEnds(c.mu, c.sigma, c.alpha, exponentOf(stage), circular);
    return c;
}

// The same after FLOW_SOFTMAX.
static DEVICE inline FlowComponent mixtureHeadOf(Stage stage, Constants constants, RealArena raw, int next, int k, bool circular) {
    const real shares = (isPublished(stage) ? sumOfShares(raw+2*numComponents(stage)*next, next, k) : (real) 0);
    return mixtureHead(stage, constants, raw, next, k, circular, raw[0], shares);
}

// A component at its argument.
typedef struct {
    real u, winding;
    SmoothSigmoid sigmoid;
    MixtureComponent value;
} FlowComponentValue;

static DEVICE inline FlowComponentValue componentValue(Stage stage, FlowComponent c, real x, bool circular) {
    FlowComponentValue v;
    v.u = mixtureComponentArgument(x, c.mu, c.sigma, circular);
    v.winding = mixtureComponentWinding(x, c.mu, c.sigma, circular);
    v.sigmoid = smoothSigmoid(v.u, c.alpha, exponentOf(stage));
    v.value = mixtureComponent(x, c.sigma, c.floor, v.sigmoid, c.ends, v.winding);
    return v;
}

// The conditioning coordinates as the networks see them, and where the mixtures are evaluated unless that is to be solved for.
static DEVICE void features(Layout layout, Stage stage, Indices indices, MixedArena arena,
        RealArena realArena) {
    const int numPlain = stage->numPlain, numCircular = stage->numCircularFeatures, D = stage->numIntervals+stage->numCircles;
    FOR_EACH(numPlain+numCircular+D) {
        int i = ITEM_ROW, t = ITEM_MOLECULE;
        if (i < numPlain)
            AT(realArena, stage->featureRow+i) = (real) AT(arena, layout->coordinateRow+indices[stage->plainIndex+i]);
        else if (i < numPlain+numCircular) {
            Activation a = activationSin((real) 6.283185307179586476925*
                    (real) AT(arena, layout->coordinateRow+indices[stage->circularIndex+i-numPlain]));
            AT(realArena, stage->featureRow+i) = a.d1;
            AT(realArena, stage->featureRow+i+numCircular) = a.value;
        }
        else {
            int d = i-numPlain-numCircular;
            AT(realArena, stage->argumentRow+d) = (real) AT(arena, layout->coordinateRow+indices[stage->transformedIndex+d]);
        }
    }
}

static DEVICE void featuresBackward(Layout layout, Stage stage, Indices indices, MixedArena arena,
        RealArena realArena) {
    const int numPlain = stage->numPlain, numCircular = stage->numCircularFeatures, numFeatures = numPlain+2*numCircular;
    FOR_EACH(numPlain+numCircular) {
        int i = ITEM_ROW, t = ITEM_MOLECULE;
        real gradient = 0, sineGradient = 0;
        for (int network = 0; network < stage->numNetworks; network++) {
            const int row = stage->featureGradientRow+network*numFeatures+i;
            gradient += AT(realArena, row);
            if (i >= numPlain)
                sineGradient += AT(realArena, row+numCircular);
        }
        if (i < numPlain)
            AT(arena, layout->gradientRow+indices[stage->plainIndex+i]) += gradient;
        else {
            mixed cosine = AT(realArena, stage->featureRow+i), sine = AT(realArena, stage->featureRow+i+numCircular);
            AT(arena, layout->gradientRow+indices[stage->circularIndex+i-numPlain]) +=
                    (mixed) 6.283185307179586476925*(cosine*sineGradient-sine*gradient);
        }
    }
}

static DEVICE Root solveMixture(Stage stage, RealArena arena, real y, bool circular, int d, int t) {
    const int K = numComponents(stage), D = stage->numIntervals+stage->numCircles;
    Root root = beginRoot(y);
    for (int step = 0; step < MOST_ROOT_STEPS && !root.found; step++) {
        real value = 0, d1 = 0;
        for (int k = 0; k < K; k++) {
            const int row = stage->parameterRow+k*D+d;
            MixtureComponentEnds ends;
            ends.lower.value = AT(arena, row+5*K*D);
            ends.inverseMass = AT(arena, row+6*K*D);
            real weight = AT(arena, row), mu = AT(arena, row+K*D), sigma = AT(arena, row+2*K*D);
            real u = mixtureComponentArgument(root.x, mu, sigma, circular);
            MixtureComponent c = mixtureComponent(root.x, sigma, AT(arena, row+4*K*D),
                    smoothSigmoid(u, AT(arena, row+3*K*D), exponentOf(stage)), ends, mixtureComponentWinding(root.x, mu, sigma, circular));
            value += weight*c.value;
            d1 += weight*c.d1;
        }
        stepRoot(&root, value-y, d1);
    }
    return root;
}

// The parameters of all components, for root finding.
static DEVICE void parameters(Stage stage, Constants constants, RealArena arena) {
    const int D = stage->numIntervals+stage->numCircles, K = numComponents(stage);
    FOR_EACH(K*D) {
        int i = ITEM_ROW, t = ITEM_MOLECULE;
        FlowComponent c = mixtureHeadOf(stage, constants, &AT(arena, stage->rawRow+i), D*TILE, i/D, i%D >= stage->numIntervals);
        const int row = stage->parameterRow+i;
        AT(arena, row) = c.weight;
        AT(arena, row+K*D) = c.mu;
        AT(arena, row+2*K*D) = c.sigma;
        AT(arena, row+3*K*D) = c.alpha;
        AT(arena, row+4*K*D) = c.floor;
        AT(arena, row+5*K*D) = c.ends.lower.value;
        AT(arena, row+6*K*D) = c.ends.inverseMass;
    }
}

// The coordinates as roots of their mixtures.
static DEVICE void solve(Layout layout, Stage stage, Indices indices, MixedArena arena,
        RealArena realArena, int firstMolecule, int numMolecules, GLOBAL mm_ulong* counters) {
    FOR_EACH(stage->numIntervals+stage->numCircles) {
        int d = ITEM_ROW, t = ITEM_MOLECULE;
        bool circular = (d >= stage->numIntervals);
        real y = AT(realArena, stage->argumentRow+d), turns = (circular ? floor(y) : (real) 0);
        Root root = solveMixture(stage, realArena, y-turns, circular, d, t);
        if (!root.found && firstMolecule+t < numMolecules)
            ATOMIC_ADD(&counters[FLOW_ROOTS_MISSED], (mm_ulong) 1);
        AT(realArena, stage->argumentRow+d) = root.x;
        AT(arena, layout->coordinateRow+indices[stage->transformedIndex+d]) = root.x+turns;
    }
}

// All components at their argument, or their gradient with respect to the raw parameters.
static DEVICE void components(Layout layout, Stage stage, Indices indices, Constants constants,
        MixedArena arena, RealArena realArena, bool backward) {
    const int D = stage->numIntervals+stage->numCircles, K = numComponents(stage);
    FOR_EACH(K*D) {
        int i = ITEM_ROW, t = ITEM_MOLECULE, d = i%D;
        bool circular = (d >= stage->numIntervals);
        FlowComponent c = mixtureHeadOf(stage, constants, &AT(realArena, stage->rawRow+i), D*TILE, i/D, circular);
        const real x = AT(realArena, stage->argumentRow+d);
        const FlowComponentValue v = componentValue(stage, c, x, circular);
        const MixtureComponent value = v.value;
        if (!backward) {
            AT(realArena, stage->componentRow+i) = c.weight*value.value;
            AT(realArena, stage->componentRow+K*D+i) = c.weight*value.d1;
            AT(realArena, stage->componentRow+2*K*D+i) = c.weight*value.d2;
        }
        else {
            real yGradient = (real) AT(arena, layout->gradientRow+indices[stage->transformedIndex+d]);
            real d1 = AT(realArena, stage->mixtureSlopeRow+d), d2 = AT(realArena, stage->curvatureRow+d);
            // Derivatives of L, which has ln|dy/dx| as a term, with respect to F and F' at fixed argument.
            real vF = yGradient, vD = (real) 1/d1;
            if (stage->inverse) {
                // Inverse function theorem at the root: dy/dx = 1/F', dy/dtheta = -F_theta/F', ln|dy/dx| = -ln F'.
                vF = -(yGradient-d2*vD)*vD;
                vD = -vD;
            }
            MixtureComponentGradient g = mixtureComponentGradient(x, v.u, c.sigma, c.floor, v.sigmoid, c.ends, v.winding, circular, vF, vD);
            const int row = stage->rawGradientRow+i;
            AT(realArena, row) = c.weight*(vF*(value.value-AT(realArena, stage->valueRow+d))+vD*(value.d1-d1));
            AT(realArena, row+K*D) = c.weight*c.dAlpha*g.alpha;
            AT(realArena, row+2*K*D) = c.weight*c.dMu*g.mu;
            AT(realArena, row+3*K*D) = c.weight*c.dSigma*g.sigma;
            AT(realArena, row+4*K*D) = c.weight*c.dFloor*g.floor;
        }
    }
}

// F, F' and F'' of a coordinate, and what they are for the flow.
static DEVICE inline void setMixture(Layout layout, Stage stage, Indices indices, MixedArena arena, RealArena realArena, int d, int t, real value,
        real d1, real d2) {
    AT(realArena, stage->valueRow+d) = value;
    AT(realArena, stage->mixtureSlopeRow+d) = d1;
    AT(realArena, stage->curvatureRow+d) = d2;
    mixed logSlope = log(d1);
    if (stage->inverse)
        AT(arena, stage->termRow+d) = -logSlope;
    else {
        AT(arena, stage->termRow+d) = logSlope;
        AT(arena, layout->coordinateRow+indices[stage->transformedIndex+d]) = value;
    }
}

static DEVICE void mixture(Layout layout, Stage stage, Indices indices, MixedArena arena,
        RealArena realArena) {
    const int D = stage->numIntervals+stage->numCircles, K = numComponents(stage);
    FOR_EACH(D) {
        int d = ITEM_ROW, t = ITEM_MOLECULE;
        real value = 0, d1 = 0, d2 = 0;
        for (int k = 0; k < K; k++) {
            int row = stage->componentRow+k*D+d;
            value += AT(realArena, row);
            d1 += AT(realArena, row+K*D);
            d2 += AT(realArena, row+2*K*D);
        }
        setMixture(layout, stage, indices, arena, realArena, d, t, value, d1, d2);
    }
}

#ifdef SUMS_IN_WARPS
// Of so many work-items side by side, a power of two.
static DEVICE inline real sumInWarp(real value, int number) {
    for (int bits = 1; bits < number; bits <<= 1)
        value += FROM_NEIGHBOUR(value, bits);
    return value;
}

// This one's element of the softmax over those that have one. No raw parameter is as small as what the others begin with.
static DEVICE inline real softmaxInWarp(real raw, bool has, int number) {
    real largest = (has ? raw : (real) -3e38);
    for (int bits = 1; bits < number; bits <<= 1) {
        const real other = FROM_NEIGHBOUR(largest, bits);
        largest = max(largest, other);
    }
    const real element = (has ? exp(raw-largest) : (real) 0);
    return element/sumInWarp(element, number);
}

// What reverse mode hands on of a number for each of them, through the centres of the published head: mu_k = share_0+...+share_k of a softmax.
static DEVICE inline real throughSharesInWarp(real gradient, real share, int k, int number) {
    for (int distance = 1; distance < number; distance <<= 1) {
        const real after = FROM_AFTER(gradient, distance);
        gradient += (k+distance < number ? after : (real) 0);
    }
    return share*(gradient-sumInWarp(share*gradient, number));
}

// The softmaxes, components and mixtures of a coupling: components of a coordinate of a molecule are work-items side by side. For the way back, if
// there is one, each leaves the derivatives of F and F' of its coordinate with respect to its raw parameters, (2, MIXTURE_PARAMETERS, work-items).
static DEVICE void mixtureInWarps(Layout layout, Stage stage, Indices indices, Constants constants, MixedArena arena, RealArena realArena,
        KeptArena kept, bool isWayBack) {
    const int D = stage->numIntervals+stage->numCircles, K = numComponents(stage), number = 1<<log2Components(stage), numItems = D*TILE*number;
    const int next = D*TILE;
    for (int item = LOCAL_ID; item < WHOLE_WARPS(numItems); item += LOCAL_SIZE) {
        const int k = item&(number-1), t = (item>>log2Components(stage))%TILE, d = (item>>log2Components(stage))/TILE;
        const bool has = (k < K && d < D), circular = (d >= stage->numIntervals);
        RealArena raw = &AT(realArena, stage->rawRow+k*D+d);
        const real weight = softmaxInWarp(has ? raw[0] : (real) 0, has, number);
        real share = 0, shares = 0;
        if (isPublished(stage)) {
            share = softmaxInWarp(has ? raw[2*K*next] : (real) 0, has, number);
            shares = share;
            for (int distance = 1; distance < number; distance <<= 1) {
                const real before = FROM_BEFORE(shares, distance);
                shares += (k >= distance ? before : (real) 0);
            }
        }
        const real x = (has ? AT(realArena, stage->argumentRow+d) : (real) 0);
        FlowComponent c;
        FlowComponentValue v;
        real value = 0, d1 = 0, d2 = 0;
        if (has) {
            c = mixtureHead(stage, constants, raw, next, k, circular, weight, shares);
            v = componentValue(stage, c, x, circular);
            value = v.value.value;
            d1 = v.value.d1;
            d2 = v.value.d2;
        }
        const real F = sumInWarp(weight*value, number), F1 = sumInWarp(weight*d1, number), F2 = sumInWarp(weight*d2, number);
        if (k == 0 && d < D)
            setMixture(layout, stage, indices, arena, realArena, d, t, F, F1, F2);
        if (!isWayBack)
            continue;
#pragma unroll
        for (int order = 0; order < 2; order++) {
            MixtureComponentGradient g;
            g.mu = 0;
            if (has)
                g = mixtureComponentGradient(x, v.u, c.sigma, c.floor, v.sigmoid, c.ends, v.winding, circular, (real) (1-order), (real) order);
            real muGradient = (has ? weight*c.dMu*g.mu : (real) 0);
            if (isPublished(stage))
                muGradient = throughSharesInWarp(muGradient, share, k, number);
            if (has) {
                KeptArena derivative = kept+stage->keptRow*TILE+order*MIXTURE_PARAMETERS*numItems+item;
                derivative[0] = weight*(order == 0 ? value-F : d1-F1);
                derivative[numItems] = weight*c.dAlpha*g.alpha;
                derivative[2*numItems] = muGradient;
                derivative[3*numItems] = weight*c.dSigma*g.sigma;
                derivative[4*numItems] = weight*c.dFloor*g.floor;
            }
        }
    }
}

static DEVICE void mixtureBackwardInWarps(Layout layout, Stage stage, Indices indices, MixedArena arena, RealArena realArena, KeptArena kept) {
    const int D = stage->numIntervals+stage->numCircles, K = numComponents(stage), number = 1<<log2Components(stage), numItems = D*TILE*number;
    for (int item = LOCAL_ID; item < WHOLE_WARPS(numItems); item += LOCAL_SIZE) {
        const int k = item&(number-1), t = (item>>log2Components(stage))%TILE, d = (item>>log2Components(stage))/TILE;
        const int row = layout->gradientRow+indices[stage->transformedIndex+min(d, D-1)];
        // The first one alone reads what it is to write.
        const real yGradient = FROM_FIRST(k == 0 && d < D ? (real) AT(arena, row) : (real) 0, number);
        if (k < K && d < D) {
            const real slope = AT(realArena, stage->mixtureSlopeRow+d), inverseSlope = (real) 1/slope;
#pragma unroll
            for (int parameter = 0; parameter < MIXTURE_PARAMETERS; parameter++) {
                KeptArena derivative = kept+stage->keptRow*TILE+parameter*numItems+item;
                AT(realArena, stage->rawGradientRow+(parameter*K+k)*D+d) = yGradient*derivative[0]+
                        inverseSlope*derivative[MIXTURE_PARAMETERS*numItems];
            }
            if (k == 0)
                AT(arena, row) = yGradient*slope+AT(realArena, stage->curvatureRow+d)*inverseSlope;
        }
    }
}
#endif

static DEVICE void mixtureBackward(Layout layout, Stage stage, Indices indices, MixedArena arena,
        RealArena realArena) {
    const int D = stage->numIntervals+stage->numCircles, K = numComponents(stage);
    FOR_EACH(D) {
        int d = ITEM_ROW, t = ITEM_MOLECULE, row = layout->gradientRow+indices[stage->transformedIndex+d];
        real yGradient = (real) AT(arena, row), d1 = AT(realArena, stage->mixtureSlopeRow+d), inverse = (real) 1/d1;
        real d2 = AT(realArena, stage->curvatureRow+d);
        AT(arena, row) = (stage->inverse ? (yGradient-d2*inverse)*inverse : yGradient*d1+d2*inverse);
        if (isPublished(stage)) {
            // mu_k = share_0+...+share_k, share = softmax(raw)
            RealArena gradient = &AT(realArena, stage->rawGradientRow+2*K*D+d), share = &AT(realArena, stage->rawRow+2*K*D+d);
            const int next = D*TILE;
            real sum = 0, mean = 0;
            for (int k = K-1; k >= 0; k--) {
                sum += gradient[k*next];
                gradient[k*next] = sum;
                mean += sum*share[k*next];
            }
            for (int k = 0; k < K; k++)
                gradient[k*next] = share[k*next]*(gradient[k*next]-mean);
        }
    }
}
