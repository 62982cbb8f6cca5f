; What trace_test.py runs here and under QEMU: a little of everything that -d shows, in 16, 32 and 64-bit code.
%include "rom.inc"
%include "long.inc"

main:   mov ecx, 3                      ; 32-bit code, blocks that come again
.loop:  lea eax, [eax + ecx * 8 + 0x12345678]
        xadd [FREE + 0x1000], eax
        loop .loop
        expect .undefined
        ud2
.undefined:
        expect .divided
        xor ecx, ecx
        div ecx
.divided:
        expect .no_gate
        int 0x80
.no_gate:
        expect .breakpoint
        int3
.breakpoint:
        expect .no_segment
        mov ax, 0x30
        mov fs, ax
.no_segment:
        sti
        cli
        jmp enter_long

        bits 64
main64: mov rax, cr0                    ; 64-bit code
        bts rax, 16                     ; WP
        mov cr0, rax
        mov r8, 0x8877665544332211
        mov qword [dword FREE + 0x2000], 0x11223344
        pxor xmm0, xmm0
        expect .not_present
        mov rbx, 1 << 39
        mov rax, [rbx]
.not_present:
        expect .not_canonical
        mov rbx, 1 << 60
        mov [rbx], rax
.not_canonical:
        std
        stc
        pushfq
        cld
        pop rax
        ret
        bits 32
%include "end.inc"
