// SPDX-License-Identifier: MIT
#include "Base64.h"

#include <openmm/OpenMMException.h>

#include <array>
#include <cstdint>

using OpenMM::OpenMMException;

namespace OpenMMFlow {

namespace {

constexpr char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::int8_t notInAlphabet = -1;

std::array<std::int8_t, 256> makeDecoder() {
    std::array<std::int8_t, 256> decoder;
    decoder.fill(notInAlphabet);
    for (int i = 0; i < 64; i++)
        decoder[static_cast<unsigned char>(alphabet[i])] = static_cast<std::int8_t>(i);
    return decoder;
}

bool isSpace(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

} // namespace

std::string encodeBase64(const std::string& bytes) {
    std::string text;
    text.reserve((bytes.size()+2)/3*4);
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        std::uint32_t group = 0;
        for (std::size_t j = i; j < i+3; j++)
            group = group<<8 | (j < bytes.size() ? static_cast<unsigned char>(bytes[j]) : 0);
        for (int shift = 18; shift >= 0; shift -= 6)
            text += alphabet[group>>shift & 63];
    }
    for (std::size_t missing = (3-bytes.size()%3)%3, i = 0; i < missing; i++)
        text[text.size()-1-i] = '=';
    return text;
}

std::string decodeBase64(const std::string& text) {
    static const std::array<std::int8_t, 256> decoder = makeDecoder();
    std::string bytes;
    bytes.reserve(text.size()/4*3);
    std::uint32_t group = 0;
    int digits = 0, padding = 0;
    for (char c : text) {
        if (isSpace(c))
            continue;
        std::int8_t value = decoder[static_cast<unsigned char>(c)];
        if (c == '=') {
            padding++;
            value = 0;
        }
        else if (value == notInAlphabet || padding > 0)
            throw OpenMMException("base64 text holds a character that does not belong there; the data were damaged");
        group = group<<6 | static_cast<std::uint32_t>(value);
        if (++digits % 4 == 0)
            for (int shift = 16; shift >= 0; shift -= 8)
                bytes += static_cast<char>(group>>shift & 255);
    }
    if (digits % 4 != 0 || padding > 2)
        throw OpenMMException("base64 text ends in the middle of a group; the data were truncated");
    bytes.resize(bytes.size()-padding);
    return bytes;
}

} // namespace OpenMMFlow
