// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_ALIGNEDARRAY_H_
#define OPENMMFLOW_ALIGNEDARRAY_H_

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>

namespace OpenMMFlow {

/** Zero-initialized numbers that start at a cache line, as vector loads want it. Moves, does not copy. */
template <class Real>
class AlignedArray {
public:
    static constexpr std::size_t ALIGNMENT = 64;

    AlignedArray() = default;
    explicit AlignedArray(std::size_t size) :
            values(static_cast<Real*>(::operator new(std::max<std::size_t>(size, 1)*sizeof(Real), std::align_val_t(ALIGNMENT)))) {
        std::fill_n(values.get(), size, Real(0));
    }
    Real* data() const {
        return values.get();
    }

private:
    struct Delete {
        void operator()(Real* p) const {
            ::operator delete(p, std::align_val_t(ALIGNMENT));
        }
    };
    std::unique_ptr<Real, Delete> values;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_ALIGNEDARRAY_H_
