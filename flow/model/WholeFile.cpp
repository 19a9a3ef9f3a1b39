// SPDX-License-Identifier: MIT
#include "model/WholeFile.h"
#include "model/Failure.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <random>
#include <unistd.h>

using namespace OpenMMFlow;
using namespace std;
namespace fs = std::filesystem;

namespace {

/** A new file that is removed again unless it gets its final name. */
class TemporaryFile {
public:
    explicit TemporaryFile(const fs::path& target) : target(target) {
        random_device random;
        do {
            path = target.parent_path()/("."+target.filename().string()+"."+to_string(random())+".part");
            descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        } while (descriptor < 0 && errno == EEXIST);
        check(descriptor >= 0, "created");
    }

    ~TemporaryFile() {
        if (descriptor >= 0)
            close(descriptor);
        if (!path.empty())
            unlink(path.c_str());
    }

    void write(const string& contents) {
        for (size_t written = 0; written < contents.size(); ) {
            ssize_t n = ::write(descriptor, contents.data()+written, contents.size()-written);
            if (n < 0 && errno == EINTR)
                continue;
            check(n >= 0, "written");
            written += n;
        }
        check(fsync(descriptor) == 0, "written");
    }

    void rename() {
        int closed = close(descriptor);
        descriptor = -1;
        check(closed == 0, "written");
        check(::rename(path.c_str(), target.c_str()) == 0, "replaced");
        path.clear();
    }

private:
    void check(bool success, const char* what) {
        if (success)
            return;
        int error = errno;
        fail("the file '", target.string(), "' could not be ", what, ": ", strerror(error));
    }

    fs::path target, path;
    int descriptor = -1;
};

} // namespace

string OpenMMFlow::readWholeFile(const string& path, const function<void(string_view, uint64_t)>& checkBeginning) {
    error_code error;
    fs::file_status status = fs::status(path, error);
    if (!fs::exists(status))
        fail("there is no such file");
    if (fs::is_directory(status))
        fail("this is a folder, expected a file");
    if (!fs::is_regular_file(status))
        fail("this is a device or a pipe, expected a file");
    uint64_t size = fs::file_size(path, error);
    ifstream file(path, ios::binary);
    if (error || !file)
        fail("the file cannot be read: ", strerror(error ? error.value() : errno));
    string contents(min<uint64_t>(size, 64), '\0');
    file.read(contents.data(), contents.size());
    if (file)
        checkBeginning(contents, size);
    size_t begun = contents.size();
    contents.resize(size);
    file.read(contents.data()+begun, size-begun);
    if (!file)
        fail("the file cannot be read: it ended before ", size, " bytes");
    return contents;
}

void OpenMMFlow::writeWholeFile(const string& path, const string& contents) {
    error_code error;
    fs::path target = fs::weakly_canonical(path, error);   // a symbolic link stays, the file behind it is written
    if (error)
        target = path;
    TemporaryFile file(target);
    file.write(contents);
    file.rename();
}
